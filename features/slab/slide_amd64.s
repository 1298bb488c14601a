#include "textflag.h"

// func slide(dst *int32, rows int, d *int64, stride, last int, times *int64, step int, span int64, lo int) int
//
// DI dst, CX rows left, SI d, DX stride, R8 last, R9 times, R10 step, R11 span, R12 lo, AX offset of the entry at lo,
// BX three strides, R13 bound.
TEXT ·slide(SB), NOSPLIT, $0-80
	MOVQ dst+0(FP), DI
	MOVQ rows+8(FP), CX
	MOVQ d+16(FP), SI
	MOVQ stride+24(FP), DX
	MOVQ last+32(FP), R8
	MOVQ times+40(FP), R9
	MOVQ step+48(FP), R10
	MOVQ span+56(FP), R11
	MOVQ lo+64(FP), R12
	LEAQ (DX)(DX*2), BX
	MOVQ R12, AX
	IMULQ DX, AX

row:
	MOVQ (R9), R13
	ADDQ R10, R9
	SUBQ R11, R13

compare:
	CMPQ AX, R8
	JGT  single
	LEAQ (SI)(AX*1), R14
	PREFETCHT0 128(R14)
	XORL R15, R15
	CMPQ R13, (R14)
	SETGE R15
	XORL AX, AX
	CMPQ R13, (R14)(DX*1)
	SETGE AX
	ADDQ AX, R15
	XORL AX, AX
	CMPQ R13, (R14)(DX*2)
	SETGE AX
	ADDQ AX, R15
	XORL AX, AX
	CMPQ R13, (R14)(BX*1)
	SETGE AX
	ADDQ AX, R15
	ADDQ R15, R12
	MOVQ R12, AX
	IMULQ DX, AX
	CMPQ R15, $4
	JEQ  compare

next:
	MOVL R12, (DI)
	ADDQ $4, DI
	DECQ CX
	JNZ  row
	MOVQ R12, ret+72(FP)
	RET

// Near the end entries are compared one by one.
single:
	CMPQ R13, (SI)(AX*1)
	JLT  next
	INCQ R12
	ADDQ DX, AX
	JMP  single
