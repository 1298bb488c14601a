#include "memory.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <map>

namespace emu {
namespace {

constexpr size_t kPage = 4096;
constexpr unsigned char kCanary = 0xA5;
constexpr size_t kQuick = 64;        // bytes before an allocation that are looked at after each kernel
constexpr size_t kRemembered = 4096; // freed allocations that a fault's description knows
constexpr size_t kGap =
    16 << 20; // inaccessible bytes between allocations: how far an index may be wrong and still be found
constexpr size_t kSpace = size_t(8) << 40; // of addresses; an allocation gets new ones as long as there are any

struct Allocation {
  size_t bytes;
  char *map; // pages between the guards
  size_t map_bytes;
  char *data() const { return map + map_bytes - ((bytes + 15) & ~size_t(15)); }
};

struct Freed {
  uint64_t address;
  size_t bytes;
};

std::map<uint64_t, Allocation> live;
std::deque<Freed> freed;
std::map<uintptr_t, size_t> pinned;
size_t total = size_t(6) << 30, used;
char *space, *space_end, *space_next; // inaccessible but for the allocations

// reserve gives addresses for so many bytes, at least kGap from all live allocations; null: there are none.
char *reserve(size_t bytes) {
  for (size_t size = kSpace; !space && size >= kSpace >> 8; size /= 2) {
    void *p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    space = space_next = static_cast<char *>(p) + kGap;
    space_end = static_cast<char *>(p) + size;
  }
  if (!space) return nullptr;
  bool again = false;
  for (;;) {
    if (bytes + kGap > size_t(space_end - space_next)) {
      if (again) return nullptr;
      again = true;
      space_next = space;
    }
    auto it = live.lower_bound(uint64_t(uintptr_t(space_next))); // who begins after it
    if (it == live.end() || it->second.map >= space_next + bytes + kGap) break;
    space_next = it->second.map + it->second.map_bytes + kGap;
  }
  char *p = space_next;
  space_next += bytes + kGap;
  return p;
}

bool intact(const char *from, const char *to) {
  for (; from < to && reinterpret_cast<uintptr_t>(from) % 8; from++)
    if (static_cast<unsigned char>(*from) != kCanary) return false;
  for (; from + 8 <= to; from += 8) {
    uint64_t word;
    memcpy(&word, from, 8);
    if (word != 0xA5A5A5A5A5A5A5A5u) return false;
  }
  for (; from < to; from++)
    if (static_cast<unsigned char>(*from) != kCanary) return false;
  return true;
}

// check_margins restores what it finds written, so that it is reported once.
Result check_margins(const Allocation &a, bool quick, const char *after) {
  char *const data = a.data(), *const end = data + a.bytes, *const top = a.map + a.map_bytes;
  char *const low = quick ? std::max(a.map, data - kQuick) : a.map;
  const bool before = !intact(low, data), past = !intact(end, top);
  if (!before && !past) return SUCCESS;
  report("illegal address: something wrote just %s the allocation of %zu bytes at 0x%llx; found %s",
         before ? "before" : "past the end of", a.bytes, static_cast<unsigned long long>(uintptr_t(data)), after);
  memset(a.map, kCanary, size_t(data - a.map));
  memset(end, kCanary, size_t(top - end));
  return ILLEGAL_ADDRESS;
}

Result release(std::map<uint64_t, Allocation>::iterator it) {
  const Allocation a = it->second;
  const Result r = check_margins(a, false, "when it was freed");
  mmap(a.map, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  freed.push_back({it->first, a.bytes});
  if (freed.size() > kRemembered) freed.pop_front();
  used -= a.bytes;
  live.erase(it);
  return r;
}

} // namespace

void set_memory_total(size_t bytes) { total = bytes; }
size_t memory_total() { return total; }
size_t memory_used() { return used; }
size_t memory_allocations() { return live.size(); }

Result memory_alloc(uint64_t *address, size_t bytes) {
  if (bytes > total || used > total - bytes) return OUT_OF_MEMORY;
  Allocation a;
  a.bytes = bytes;
  a.map_bytes = (bytes + kPage - 1) & ~(kPage - 1);
  a.map = reserve(a.map_bytes);
  if (!a.map || mprotect(a.map, a.map_bytes, PROT_READ | PROT_WRITE) != 0) {
    report("the host has no %zu bytes left for emulated device memory: %s", bytes, strerror(errno));
    return OUT_OF_MEMORY;
  }
  char *const data = a.data();
  memset(a.map, kCanary, size_t(data - a.map));
  memset(data, 0xff, bytes);
  memset(data + bytes, kCanary, size_t(a.map + a.map_bytes - data) - bytes);
  *address = uint64_t(uintptr_t(data));
  live[*address] = a;
  used += bytes;
  return SUCCESS;
}

Result memory_free(uint64_t address) {
  auto it = live.find(address);
  return it == live.end() ? INVALID_VALUE : release(it);
}

void memory_free_all() {
  while (!live.empty()) release(live.begin());
}

bool memory_holds(uint64_t address, size_t bytes) {
  auto it = live.upper_bound(address);
  if (it == live.begin()) return false;
  --it;
  const uint64_t offset = address - it->first;
  return offset <= it->second.bytes && bytes <= it->second.bytes - offset;
}

Result memory_check(bool quick, const char *after) {
  Result r = SUCCESS;
  for (auto &entry : live)
    if (Result one = check_margins(entry.second, quick, after)) r = one;
  return r;
}

std::string describe_address(uintptr_t address) {
  char text[256];
  const Allocation *nearest = nullptr;
  uint64_t at = 0, distance = UINT64_MAX;
  bool past = false;
  auto consider = [&](const std::map<uint64_t, Allocation>::const_iterator &it) {
    const uint64_t begin = it->first, end = begin + it->second.bytes;
    const uint64_t d = address < begin ? begin - address : address - end;
    if (d >= distance) return;
    nearest = &it->second, at = begin, distance = d, past = address >= end;
  };
  auto it = live.upper_bound(address);
  if (it != live.end()) consider(it);
  if (it != live.begin()) consider(std::prev(it));
  for (auto f = freed.rbegin(); f != freed.rend(); ++f) {
    if (address - f->address >= f->bytes) continue;
    snprintf(text, sizeof text, "byte %llu of the allocation of %zu bytes at 0x%llx, which was freed",
             static_cast<unsigned long long>(address - f->address), f->bytes,
             static_cast<unsigned long long>(f->address));
    return text;
  }
  if (address < kPage) return "near address 0";
  if (!nearest) return "there is no allocation";
  snprintf(text, sizeof text, "%llu bytes %s the allocation of %zu bytes at 0x%llx (the nearest)",
           static_cast<unsigned long long>(distance), past ? "past the end of" : "before", nearest->bytes,
           static_cast<unsigned long long>(at));
  return text;
}

void *host_alloc(size_t bytes) {
  const size_t room = (bytes + kPage - 1) & ~(kPage - 1);
  char *p = static_cast<char *>(
      mmap(nullptr, room + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (p == MAP_FAILED) return nullptr;
  mprotect(p + room, kPage, PROT_NONE);
  memset(p, 0xff, bytes);
  pinned[uintptr_t(p)] = bytes;
  return p;
}

bool host_free(void *p) {
  auto it = pinned.find(uintptr_t(p));
  if (it == pinned.end()) return false;
  munmap(p, ((it->second + kPage - 1) & ~(kPage - 1)) + kPage);
  pinned.erase(it);
  return true;
}

void host_free_all() {
  while (!pinned.empty()) host_free(reinterpret_cast<void *>(pinned.begin()->first));
}

size_t host_allocations() { return pinned.size(); }

HostKind host_kind(const void *p, size_t bytes) {
  const uintptr_t address = uintptr_t(p);
  auto it = pinned.upper_bound(address);
  if (it == pinned.begin()) return PAGEABLE;
  --it;
  if (address >= it->first + it->second) return PAGEABLE;
  return bytes <= it->first + it->second - address ? PINNED : PINNED_OVERRUN;
}

} // namespace emu
