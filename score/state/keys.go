package state

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Keys of the database:
//
//	h                                  the header
//	j N                                a journal entry
//	p GENERATION part name 0 CHUNK     a piece of a checkpoint's part
//
// Numbers are big endian, so that their order is that of the keys. Every value ends in a CRC-32C of key and value: the
// database checks what it reads from the disk, and this checks what it was given.
var (
	headKey    = []byte("h")
	endOfParts = []byte("q")
)

const (
	journalByte = 'j'
	partByte    = 'p'
)

func entryKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{journalByte}, n) }

// endOfJournal is behind the highest number: the next letter.
var endOfJournal = []byte{journalByte + 1}

func generationKey(g uint64) []byte { return binary.BigEndian.AppendUint64([]byte{partByte}, g) }

func chunkKey(g uint64, part string, chunk int) []byte {
	k := append(generationKey(g), part...)
	return binary.BigEndian.AppendUint32(append(k, 0), uint32(chunk))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// sealed appends the checksum.
func sealed(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, checksum(key, value))
}

var errChecksum = errors.New("its checksum is wrong")

// unsealed checks it and cuts it off.
func unsealed(key, value []byte) ([]byte, error) {
	n := len(value) - 4
	if n < 0 || binary.LittleEndian.Uint32(value[n:]) != checksum(key, value[:n]) {
		return nil, errChecksum
	}
	return value[:n], nil
}
