package slab

import "math"

// The functions below say what memory structures take before there are any, for a plan that is to name it. They
// count blocks as Arena.Bytes does, and for tables the directories on the heap too.

// IntsBytes is the expected size of an Ints of so many keys.
func IntsBytes(keys int) int64 {
	return indexBytes(keys) + pagesBytes(keys, 1)
}

// TextsBytes is the expected size of a Texts of so many texts of that many bytes each.
func TextsBytes(texts, length int) int64 {
	n := indexBytes(texts) + pagesBytes(texts, entryWords)
	if length > inlineText {
		n += int64(texts) * int64(ClassWords(wordsFor(length))) * wordBytes
	}
	return n
}

func indexBytes(keys int) int64 {
	const entry = 16 + wordBytes // of the directory: a leaf and its Ref
	leaves, depth, bits := expectedLeaves(keys, leafMin, leafMax)
	return int64(leaves*float64(int(4)<<bits)) + entry<<max(1, depth)
}

func pagesBytes(keys, words int) int64 {
	n := pageMin
	for n < keys {
		n += min(n, 1<<pageBits)
	}
	return int64(n) * int64(words) * wordBytes
}

// expectedLeaves is how many leaves extendible hashing comes to with n keys, and the depth of its directory: a node
// of the tree of leaves is cut when more keys than fit have come to it, whose number is Poisson distributed, here
// with the normal approximation.
func expectedLeaves(n, least, most int) (leaves float64, depth, bits int) {
	for bits = least; bits < most && 4*n > 3<<bits; bits++ {
	}
	if 4*n <= 3<<most {
		return 1, 0, bits
	}
	full := 0.75 * float64(int(1)<<most)
	leaves, depth = 2, 1 // the first has had more than fit
	for nodes := 2.0; ; nodes *= 2 {
		mean := float64(n) / nodes
		cut := 0.5 * math.Erfc((full+0.5-mean)/math.Sqrt(2*mean))
		leaves += nodes * cut
		if nodes*cut < 0.5 {
			return leaves, depth, most
		}
		depth++
	}
}
