package slab

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// mix is a one-to-one map of 64 bits in which every bit of the result depends on every bit of v: the finaliser of
// splitmix64 with the constants of Stafford's mix 13 (2011, "Better bit mixing").
func mix(v uint64) uint64 {
	v ^= v >> 30
	v *= 0xbf58476d1ce4e5b9
	v ^= v >> 27
	v *= 0x94d049bb133111eb
	return v ^ v>>31
}

const (
	k0 = 0xa0761d6478bd642f
	k1 = 0xe7037ed1a0b428db
	k2 = 0x8ebc6af09c88c6e3
)

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hashText is a hash of bytes in the manner of wyhash: 16 bytes at a time are multiplied and folded.
func hashText(s string) uint64 {
	n := len(s)
	h := uint64(n) ^ k0
	b := unsafe.Slice(unsafe.StringData(s), n)
	for len(b) > 16 {
		h = fold(binary.LittleEndian.Uint64(b)^k1, binary.LittleEndian.Uint64(b[8:])^h)
		b = b[16:]
	}
	var x, y uint64
	switch {
	case len(b) >= 8:
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[len(b)-8:])
	case len(b) >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	case len(b) > 0:
		x = uint64(b[0]) | uint64(b[len(b)/2])<<8 | uint64(b[len(b)-1])<<16
	}
	return fold(fold(x^k1, y^h)^k2, uint64(n)^k1)
}
