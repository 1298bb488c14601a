package model

// Assemble is Open after the files were read, for fuzzing past the checksums.
func Assemble(manifest []byte, files map[string][]byte) (*Artifact, error) {
	m, err := decodeManifest(manifest)
	if err != nil {
		return nil, err
	}
	return assemble(m, files)
}

// Seal gives a changed manifest the version of its content.
func Seal(m *Manifest) {
	v, err := m.version()
	if err != nil {
		panic(err)
	}
	m.Version = v
}

var Format = format
