#include "textflag.h"

// func slide(windows *Sliding, n, rows int, d *int64, stride, last int, times *int64, step int)
//
// DI first window, R8 end of the windows, CX rows left, SI d, DX stride, BX three strides, R9 times, R10 place in dst; of a row
// R11 t; of a window R12 itself, R13 bound, AX lo, R14 the entry at lo, R15 whether an entry is not greater.
TEXT ·slide(SB), NOSPLIT, $0-64
	MOVQ windows+0(FP), DI
	MOVQ n+8(FP), AX
	LEAQ (AX)(AX*4), AX
	LEAQ (DI)(AX*8), R8
	MOVQ rows+16(FP), CX
	MOVQ d+24(FP), SI
	MOVQ stride+32(FP), DX
	LEAQ (DX)(DX*2), BX
	MOVQ times+48(FP), R9
	XORL R10, R10

row:
	MOVQ (R9), R11
	MOVQ DI, R12

window:
	MOVQ R11, R13
	SUBQ 24(R12), R13
	MOVQ 32(R12), AX

compare:
	MOVQ AX, R14
	IMULQ DX, R14
	CMPQ R14, last+40(FP)
	JGT  single
	ADDQ SI, R14
	PREFETCHT0 128(R14)
	XORL R15, R15
	CMPQ R13, (R14)
	SETGE R15
	ADDQ R15, AX
	XORL R15, R15
	CMPQ R13, (R14)(DX*1)
	SETGE R15
	ADDQ R15, AX
	XORL R15, R15
	CMPQ R13, (R14)(DX*2)
	SETGE R15
	ADDQ R15, AX
	XORL R15, R15
	CMPQ R13, (R14)(BX*1)
	SETGE R15
	ADDQ R15, AX
	TESTQ R15, R15
	JNE  compare

next:
	MOVQ AX, 32(R12)
	MOVQ (R12), R14
	MOVL AX, (R14)(R10*1)
	ADDQ $40, R12
	CMPQ R12, R8
	JNE  window
	ADDQ $4, R10
	ADDQ step+56(FP), R9
	DECQ CX
	JNZ  row
	RET

// Near the end entries are compared one by one.
single:
	CMPQ R13, (SI)(R14*1)
	JLT  next
	INCQ AX
	ADDQ DX, R14
	JMP  single
