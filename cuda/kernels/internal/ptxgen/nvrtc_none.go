//go:build !linux || !amd64 || nocuda

package main

import (
	"errors"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

type nvrtc struct{}

// openNVRTC refuses: the pinned compiler is one for linux/amd64, and the tag nocuda leaves out what opens it.
func openNVRTC(string, string) (*nvrtc, error) {
	return nil, errors.New("PTX is made on linux/amd64, without the tag nocuda; the committed files serve every machine")
}

func (*nvrtc) compile(ptxfile.File, []ptxfile.File, []string) ([]byte, string, error) {
	return nil, "", errors.ErrUnsupported
}
