// What the emulated driver reads in PTX: enough to refuse a damaged or foreign image, and to compare each
// entry's parameters with those of the kernel that was compiled for the host in its place.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "executor.h"

namespace emu {

struct PtxEntry {
  std::vector<uint32_t> sizes; // bytes of each parameter
  uint32_t threads = 0;        // .maxntid, 0 where there is none
};

struct Ptx {
  std::map<std::string, PtxEntry> entries;
};

// parse_ptx fills p, or returns what a driver of that CUDA version (11080) for a device of that capability (75)
// returns for the image, with a line in log.
Result parse_ptx(const std::string &text, int cuda, int capability, Ptx *p, std::string *log);

} // namespace emu
