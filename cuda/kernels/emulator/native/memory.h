// Device memory and pinned host memory of the emulated device.
//
// Each allocation of device memory lies in 16 MiB of inaccessible addresses, its end within 15 bytes of them
// and its begin within a page; what is left over is watched. It is 16-byte aligned (a device gives 256) and
// holds NaN (0xff) at first. What was freed stays inaccessible, so that a late access faults.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "executor.h"

namespace emu {

void set_memory_total(size_t bytes);
size_t memory_total();
size_t memory_used();
size_t memory_allocations();

Result memory_alloc(uint64_t *address, size_t bytes);
// memory_free gives INVALID_VALUE for what is no live allocation, ILLEGAL_ADDRESS for one whose margins were
// written.
Result memory_free(uint64_t address);
void memory_free_all();
// memory_holds is whether the bytes lie within one live allocation.
bool memory_holds(uint64_t address, size_t bytes);
// memory_check looks at the margins of all allocations, or only next to their ends (quick), and names the
// fault's suspect.
Result memory_check(bool quick, const char *after);

void *host_alloc(size_t bytes); // null: none
bool host_free(void *p);
void host_free_all();
size_t host_allocations();
enum HostKind { PAGEABLE, PINNED, PINNED_OVERRUN };
// host_kind says whether host memory is pinned; PINNED_OVERRUN begins in a pinned allocation and ends outside.
HostKind host_kind(const void *p, size_t bytes);

} // namespace emu
