#include "executor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace emu {

__thread uint3 *thread_index;
__thread Block *block;
__thread char **shared_ready;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 64 << 10;             // a thread's local variables; what is not touched costs nothing
constexpr size_t kStackStride = kStackBytes + kPage; // with a guard page below
constexpr unsigned kMaxSharedArrays = 1024;
constexpr size_t kSharedStride = 1 << 20; // addresses for each array; its end is in the middle
constexpr unsigned char kCanary = 0xA5;

char *map_pages(size_t bytes, int protection) {
  void *p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    report("no memory for the emulator itself: mmap of %zu bytes: %s", bytes, strerror(errno));
    abort();
  }
  return static_cast<char *>(p);
}

// emu_switch keeps the callee-saved registers on the stack it leaves and takes those of the one it goes to.
extern "C" void emu_switch(void **save, void *to) __attribute__((visibility("hidden")));
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, . - emu_switch
)");

enum State : uint8_t { FRESH, READY, AT_BARRIER, AT_WARP, DONE };
constexpr unsigned kBallot = ~0u; // in Thread::from

struct Thread {
  uint3 index;
  uint16_t fiber;
  uint8_t lane;
  State state;
  unsigned warp;
  void *sp; // of its fiber while another runs
  // What it waits at. value is what it offers to its warp, then what it got.
  const Site *at;
  unsigned mask, from;
  uint64_t value;
};

struct Warp {
  unsigned lanes;   // that the block has
  unsigned waiting; // at a warp operation
  unsigned done;    // returned
};

struct SharedSlot {
  const char *name = nullptr;
  char *data = nullptr;
  size_t bytes = 0;
  char *begin() const { return data - uintptr_t(data) % kPage; } // of its pages
  char *end() const { return data + ((bytes + 15) & ~size_t(15)); }
};

// Fault is what the signal handler saw.
struct Fault {
  int signal, code;
  uintptr_t address;
  bool write;
};

struct Executor {
  void *home = nullptr; // stack of the scheduler
  bool running = false; // a kernel is on this executor's stack
  Thread *current = nullptr;
  const Launch *launch = nullptr;
  Block info;
  unsigned count = 0; // of threads
  unsigned done = 0, at_barrier = 0, votes = 0, result = 0;
  const Site *barrier_at = nullptr;
  unsigned fresh = 0;             // position in start
  uint16_t start[kMaxThreads];    // the order of this phase
  uint16_t ring[2 * kMaxThreads]; // who may go on; each thread is in it once at most
  unsigned head = 0, tail = 0;
  uint16_t free_fibers[kMaxThreads];
  unsigned n_free = 0;
  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / 32];
  char *stacks;
  Random random{0};
  Result error = SUCCESS;
  Fault fault{};

  char *ready[kMaxSharedArrays + 1] = {};
  SharedSlot slots[kMaxSharedArrays + 1]; // the last is the dynamic one
  std::vector<int> touched;
  char *shared_space;
  size_t shared_bytes = 0;

  Executor();
  void begin(const Launch &l);
  void run_block(uint3 index);
  Thread *next();
  void wait(Thread &me);
  void finish(Thread &me);
  void enter(Thread &t) {
    current = &t;
    thread_index = &t.index;
  }
  void push_back(Thread &t) { ring[tail++ % (2 * kMaxThreads)] = uint16_t(&t - threads); }
  void push_front(Thread &t) { ring[--head % (2 * kMaxThreads)] = uint16_t(&t - threads); }
  void shuffle_start();
  void release_barrier();
  bool release_warp(Warp &w, Thread &t);
  void deadlock();
  void *stack_top(unsigned fiber) const;
  void prepare(Thread &t);
  void check_canaries();
  char *fill(int id, const char *name, size_t bytes);
  [[noreturn]] void fail(Thread *who, Result code, const char *format, ...) __attribute__((format(printf, 4, 5)));
  [[noreturn]] void end_with(Result code);
  void say(Thread *who, Result code, const char *format, va_list arguments);
  [[noreturn]] void land();
};

__thread Executor *executor; // that runs on this OS thread
Kernel *kernels;             // all that were compiled in

const char *name_of(Result r) {
  switch (r) {
  case ILLEGAL_ADDRESS: return "illegal address";
  case MISALIGNED_ADDRESS: return "misaligned address";
  default: return "launch failed";
  }
}

std::string place(const Site *s) {
  const char *base = strrchr(s->file, '/');
  return std::string(s->what) + " at " + (base ? base + 1 : s->file) + ":" + std::to_string(s->line);
}

std::string place(const uint3 &t) {
  return "(" + std::to_string(t.x) + "," + std::to_string(t.y) + "," + std::to_string(t.z) + ")";
}

// ---- fibers ----

// fiber_main runs threads that have not begun, one after the other, as long as none of them has to wait: a kernel
// without barriers needs one fiber and no switch.
void fiber_main() {
  Executor &e = *executor;
  for (;;) {
    Thread &me = *e.current;
    const uint16_t fiber = me.fiber;
    e.launch->kernel->call(e.launch->parameters);
    e.finish(me);
    Thread *t = e.next();
    if (t && t->state == FRESH) {
      t->fiber = fiber;
      t->state = READY;
      e.enter(*t);
      continue;
    }
    e.free_fibers[e.n_free++] = fiber;
    void *unused;
    if (!t) emu_switch(&unused, e.home);
    e.enter(*t);
    emu_switch(&unused, t->sp);
  }
}

Executor::Executor() {
  shared_space = map_pages((kMaxSharedArrays + 1) * kSharedStride, PROT_NONE);
  stacks = map_pages(kMaxThreads * kStackStride, PROT_NONE);
  for (unsigned i = 0; i < kMaxThreads; i++)
    if (mprotect(stacks + i * kStackStride + kPage, kStackBytes, PROT_READ | PROT_WRITE) != 0) {
      report("no memory for the stacks of the emulated threads: %s", strerror(errno));
      abort();
    }
}

// stack_top starts each stack at another place in its page, so that stacks do not compete for the same cache lines.
void *Executor::stack_top(unsigned fiber) const { return stacks + (fiber + 1) * kStackStride - (fiber % 32) * 128; }

void Executor::prepare(Thread &t) {
  t.fiber = free_fibers[--n_free];
  t.state = READY;
  void **sp = static_cast<void **>(stack_top(t.fiber)) - 2; // fiber_main starts as after a call: 8 mod 16
  *sp = reinterpret_cast<void *>(fiber_main);
  sp -= 6;
  memset(sp, 0, 6 * sizeof *sp);
  t.sp = sp;
}

// wait gives the processor to whoever is next, until me may go on.
void Executor::wait(Thread &me) {
  Thread *t = next();
  if (t == &me) return;
  if (!t) emu_switch(&me.sp, home); // only after a failure: nobody comes back
  if (t->state == FRESH) prepare(*t);
  enter(*t);
  emu_switch(&me.sp, t->sp);
}

// next chooses who runs now: a thread that may go on or one that has not begun. Null: the block is over or has
// failed.
Thread *Executor::next() {
  const unsigned order = launch->order;
  for (;;) {
    const bool waiting = head != tail, unborn = fresh < count;
    if (unborn && (!waiting || order == 0 || (order > 1 && (random.next() & 1)))) return &threads[start[fresh++]];
    if (waiting) {
      Thread &t = threads[ring[head++ % (2 * kMaxThreads)]];
      return &t;
    }
    if (done == count) return nullptr;
    if (at_barrier != count) {
      deadlock();
      return nullptr;
    }
    release_barrier();
  }
}

void Executor::finish(Thread &me) {
  me.state = DONE;
  done++;
  Warp &w = warps[me.warp];
  w.done |= 1u << me.lane;
  unsigned waiting = w.waiting;
  while (waiting) { // it may have been the last that others waited for
    unsigned l = unsigned(__builtin_ctz(waiting));
    waiting &= waiting - 1;
    if (w.waiting >> l & 1) release_warp(w, threads[me.warp * 32 + l]);
  }
}

void Executor::shuffle_start() {
  for (unsigned i = count; i > 1; i--) std::swap(start[i - 1], start[random.below(i)]);
}

// ---- barriers and warps ----

void Executor::release_barrier() {
  if (launch->order > 1) shuffle_start();
  result = votes;
  votes = at_barrier = 0;
  for (unsigned i = 0; i < count; i++) {
    Thread &t = threads[start[i]];
    t.state = READY;
    push_back(t);
  }
}

// release_warp wakes the lanes of the operation that t waits at, if all of its mask have come.
bool Executor::release_warp(Warp &w, Thread &t) {
  const unsigned mask = t.mask, need = mask & w.lanes & ~w.done;
  if ((w.waiting & need) != need) return false;
  Thread *const lanes = &threads[t.warp * 32];
  uint64_t offered[32];
  const Site *const at = t.at;
  for (unsigned rest = need; rest; rest &= rest - 1) {
    const unsigned l = unsigned(__builtin_ctz(rest));
    if (lanes[l].mask != mask || lanes[l].at != at) return false;
    offered[l] = lanes[l].value;
  }
  if (t.from == kBallot) {
    uint64_t bits = 0;
    for (unsigned rest = need; rest; rest &= rest - 1) {
      const unsigned l = unsigned(__builtin_ctz(rest));
      bits |= offered[l] << l;
    }
    for (unsigned rest = need; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].value = bits;
  } else {
    for (unsigned rest = need; rest; rest &= rest - 1) {
      Thread &o = lanes[__builtin_ctz(rest)];
      if (!(need >> o.from & 1)) {
        const char *why = !(mask >> o.from & 1)      ? "which is outside its mask"
                          : !(w.lanes >> o.from & 1) ? "which the block does not have"
                                                     : "which has returned";
        fail(&o, LAUNCH_FAILED, "%s with mask 0x%08x: lane %u reads lane %u, %s", place(at).c_str(), mask, o.lane,
             o.from, why);
      }
      o.value = offered[o.from];
    }
  }
  w.waiting &= ~need;
  uint8_t order[32];
  unsigned n = 0;
  for (unsigned rest = need; rest; rest &= rest - 1) order[n++] = uint8_t(__builtin_ctz(rest));
  bool front = launch->order == 1;
  if (launch->order > 1) {
    for (unsigned i = n; i > 1; i--) std::swap(order[i - 1], order[random.below(i)]);
    front = random.next() & 1;
  }
  for (unsigned i = 0; i < n; i++) {
    Thread &o = lanes[order[i]];
    o.state = READY;
    if (front)
      push_front(o);
    else
      push_back(o);
  }
  return true;
}

void join_warp(Executor &e, Thread &t) {
  Warp &w = e.warps[t.warp];
  if (!(t.mask >> t.lane & 1))
    e.fail(&t, LAUNCH_FAILED, "%s: the mask 0x%08x leaves out the calling lane %u", place(t.at).c_str(), t.mask,
           t.lane);
  if (t.mask != ~0u && (t.mask & ~w.lanes))
    e.fail(&t, LAUNCH_FAILED, "%s: the mask 0x%08x names lanes that the block does not have (it has 0x%08x)",
           place(t.at).c_str(), t.mask, w.lanes);
  w.waiting |= 1u << t.lane;
  t.state = AT_WARP;
  e.release_warp(w, t);
  e.wait(t);
}

// deadlock says why nobody can go on.
void Executor::deadlock() {
  for (unsigned i = 0; i < count; i++) {
    Thread &t = threads[i];
    if (t.state != AT_WARP) continue;
    Warp &w = warps[t.warp];
    for (unsigned l = 0; l < 32; l++) {
      if (!(t.mask & w.lanes & ~w.done) || !(t.mask & w.lanes & ~w.done & 1u << l)) continue;
      Thread &o = threads[t.warp * 32 + l];
      if (o.state == AT_WARP && o.at == t.at && o.mask == t.mask) continue;
      fail(&t, LAUNCH_FAILED, "deadlock: it waits in %s with mask 0x%08x for lane %u, which waits in %s%s",
           place(t.at).c_str(), t.mask, l, place(o.at).c_str(),
           o.state == AT_WARP && o.at == t.at ? " with another mask" : "");
    }
  }
  Thread *waits = nullptr, *gone = nullptr;
  for (unsigned i = 0; i < count; i++) {
    Thread &t = threads[i];
    if (t.state == AT_BARRIER && !waits) waits = &t;
    if (t.state == DONE && !gone) gone = &t;
  }
  fail(waits, LAUNCH_FAILED, "diverged barrier: %u of %u threads wait in %s, and thread %s has returned", at_barrier,
       count, place(waits->at).c_str(), place(gone->index).c_str());
}

// ---- shared memory ----

// fill gives a slot its memory where it has none of that size, and NaN in it. The end is at an inaccessible
// page, but for up to 15 bytes.
char *Executor::fill(int id, const char *name, size_t bytes) {
  SharedSlot &s = slots[id];
  if (s.bytes != bytes) {
    if (s.data) mprotect(s.begin(), size_t(s.end() - s.begin()), PROT_NONE);
    s.bytes = bytes;
    s.data = shared_space + size_t(id) * kSharedStride + kSharedStride / 2 - ((bytes + 15) & ~size_t(15));
    if (mprotect(s.begin(), size_t(s.end() - s.begin()), PROT_READ | PROT_WRITE) != 0) {
      report("no memory for shared memory: %s", strerror(errno));
      abort();
    }
    memset(s.begin(), kCanary, size_t(s.end() - s.begin()));
  }
  s.name = name;
  memset(s.data, 0xff, bytes);
  touched.push_back(id);
  return ready[id] = s.data;
}

bool intact(const char *from, const char *to) {
  for (const char *p = from; p < to; p++)
    if (static_cast<unsigned char>(*p) != kCanary) return false;
  return true;
}

void Executor::check_canaries() {
  for (int id : touched) {
    const SharedSlot &s = slots[id];
    const bool before = !intact(s.begin(), s.data), after = !intact(s.data + s.bytes, s.end());
    if (!before && !after) continue;
    memset(s.begin(), kCanary, size_t(s.data - s.begin()));
    memset(s.data + s.bytes, kCanary, size_t(s.end() - s.data) - s.bytes);
    if (error != SUCCESS) continue;
    error = ILLEGAL_ADDRESS;
    report("illegal address in kernel %s, block %s: a thread wrote just %s shared array %s of %zu bytes",
           launch->kernel->name, place(info.index).c_str(), before ? "before" : "past the end of", s.name, s.bytes);
  }
}

// ---- faults ----

void Executor::say(Thread *who, Result code, const char *format, va_list arguments) {
  char what[512];
  vsnprintf(what, sizeof what, format, arguments);
  report("%s in kernel %s, block %s, thread %s: %s", name_of(code), launch->kernel->name, place(info.index).c_str(),
         place(who->index).c_str(), what);
}

// fail ends the launch; the threads' stacks are left as they are.
void Executor::fail(Thread *who, Result code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(who, code, format, arguments);
  va_end(arguments);
  end_with(code);
}

void Executor::end_with(Result code) {
  error = code;
  void *unused;
  emu_switch(&unused, home);
  __builtin_unreachable();
}

std::string describe_shared(const Executor &e, uintptr_t address) {
  const size_t id = (address - uintptr_t(e.shared_space)) / kSharedStride;
  if (address < uintptr_t(e.shared_space) || id > kMaxSharedArrays) return "";
  const SharedSlot &s = e.slots[id];
  if (!s.data) return "among the shared arrays";
  const uintptr_t begin = uintptr_t(s.data);
  const bool past = address >= begin;
  return std::to_string(past ? address - begin - s.bytes : begin - address) + " bytes " +
         (past ? "past the end of" : "before") + " shared array " + s.name + " of " + std::to_string(s.bytes) +
         " bytes";
}

// land is where a thread that faulted goes on, at the top of its own stack.
void Executor::land() {
  Thread &t = *current;
  const Fault f = fault;
  const uintptr_t stack = uintptr_t(stacks + t.fiber * kStackStride);
  switch (f.signal) {
  case SIGFPE: fail(&t, LAUNCH_FAILED, "an integer is divided by zero (a GPU gives no fault and a meaningless number)");
  case SIGILL:
    fail(&t, LAUNCH_FAILED, "an illegal instruction: the compiler took this place for one that is never reached");
  }
  if (f.code == SI_KERNEL)
    fail(&t, MISALIGNED_ADDRESS, "a misaligned vector, or an address that is none, is read or written");
  if (f.address >= stack && f.address < stack + kPage)
    fail(&t, LAUNCH_FAILED, "its local variables take more than %zu KiB of stack", kStackBytes >> 10);
  std::string where = describe_shared(*this, f.address);
  if (where.empty()) where = describe_address(f.address);
  fail(&t, ILLEGAL_ADDRESS, "%s of 0x%llx, %s", f.write ? "write" : "read", static_cast<unsigned long long>(f.address),
       where.c_str());
}

void landing() { executor->land(); }

struct sigaction previous[NSIG];

void hand_on(int signal, siginfo_t *info, void *context) {
  const struct sigaction &p = previous[signal];
  if (p.sa_flags & SA_SIGINFO) {
    p.sa_sigaction(signal, info, context);
  } else if (p.sa_handler != SIG_DFL && p.sa_handler != SIG_IGN) {
    p.sa_handler(signal);
  } else { // the instruction runs again and ends the process as it would have
    sigaction(signal, &p, nullptr);
  }
}

void handle(int signal, siginfo_t *info, void *context) {
  Executor *e = executor;
  if (!e || !e->running || info->si_code <= 0) { // no kernel, or a signal that somebody sent
    hand_on(signal, info, context);
    return;
  }
  e->running = false; // a fault in what follows is the emulator's own
  ucontext_t *c = static_cast<ucontext_t *>(context);
  e->fault = {signal, info->si_code, uintptr_t(info->si_addr), (c->uc_mcontext.gregs[REG_ERR] & 2) != 0};
  const uintptr_t top = uintptr_t(e->stack_top(e->current->fiber));
  c->uc_mcontext.gregs[REG_RIP] = greg_t(uintptr_t(landing));
  c->uc_mcontext.gregs[REG_RSP] = greg_t(top - 8);
  c->uc_mcontext.gregs[REG_EFL] &= ~greg_t(0x40400); // direction flag, alignment check
}

// ensure_signal_stack gives threads that have none (Go's have) a place for the handler, as fibers' stacks may
// be full.
void ensure_signal_stack() {
  static __thread bool looked;
  if (looked) return;
  looked = true;
  stack_t s{};
  if (sigaltstack(nullptr, &s) != 0 || !(s.ss_flags & SS_DISABLE)) return;
  constexpr size_t bytes = 64 << 10;
  stack_t mine{};
  mine.ss_sp = map_pages(bytes, PROT_READ | PROT_WRITE);
  mine.ss_size = bytes;
  sigaltstack(&mine, nullptr);
}

// ---- blocks ----

void Executor::begin(const Launch &l) {
  launch = &l;
  info.dim = l.block;
  info.grid = l.grid;
  count = l.block.x * l.block.y * l.block.z;
  random.state = l.seed;
  error = SUCCESS;
  for (unsigned i = 0; i < count; i++) {
    Thread &t = threads[i];
    t.index = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
    t.lane = uint8_t(i % 32);
    t.warp = i / 32;
    start[i] = uint16_t(l.order == 1 ? count - 1 - i : i);
  }
  for (unsigned w = 0; w * 32 < count; w++) warps[w].lanes = count - w * 32 >= 32 ? ~0u : (1u << (count - w * 32)) - 1;
}

void Executor::run_block(uint3 index) {
  info.index = index;
  done = at_barrier = votes = fresh = head = tail = 0;
  for (unsigned i = 0; i < count; i++) threads[i].state = FRESH;
  for (unsigned w = 0; w * 32 < count; w++) warps[w].waiting = warps[w].done = 0;
  n_free = count;
  for (unsigned i = 0; i < count; i++) free_fibers[i] = uint16_t(count - 1 - i);
  if (launch->order > 1) shuffle_start();
  shared_bytes = launch->shared;
  Thread *t = next();
  prepare(*t);
  enter(*t);
  running = true;
  emu_switch(&home, t->sp);
  running = false;
  check_canaries();
  for (int id : touched) ready[id] = nullptr;
  touched.clear();
}

uint3 block_index(const dim3 &grid, uint64_t i) {
  return {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
}

} // namespace

void add_kernel(Kernel *k) {
  k->next = kernels;
  kernels = k;
}

const Kernel *find_kernel(const std::string &name) {
  for (Kernel *k = kernels; k; k = k->next)
    if (name == k->name) return k;
  return nullptr;
}

void report(const char *format, ...) {
  char line[1024];
  const int prefix = snprintf(line, sizeof line, "onmart emulator: ");
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line + prefix, sizeof line - size_t(prefix) - 1, format, arguments);
  va_end(arguments);
  n = std::min(prefix + std::max(n, 0), int(sizeof line) - 2);
  line[n] = '\n';
  if (write(2, line, size_t(n) + 1) < 0) return; // stderr is closed: there is nobody to tell
}

Result run(const Launch &l) {
  static Executor *the = new Executor; // never freed: the library stays loaded
  ensure_signal_stack();
  Executor &e = *the;
  executor = the;
  block = &e.info;
  shared_ready = e.ready;
  e.begin(l);
  const uint64_t blocks = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
  if (l.order > 1) {
    std::vector<uint32_t> order(blocks);
    for (uint64_t i = 0; i < blocks; i++) order[i] = uint32_t(i);
    for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[e.random.below(uint32_t(i))]);
    for (uint64_t i = 0; i < blocks && e.error == SUCCESS; i++) e.run_block(block_index(l.grid, order[i]));
  } else {
    for (uint64_t i = 0; i < blocks && e.error == SUCCESS; i++)
      e.run_block(block_index(l.grid, l.order == 1 ? blocks - 1 - i : i));
  }
  executor = nullptr;
  return e.error;
}

void install_handlers() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
      struct sigaction a{};
      a.sa_sigaction = handle;
      a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
      sigfillset(&a.sa_mask);
      sigaction(s, nullptr, &previous[s]); // before ours can run
      sigaction(s, &a, nullptr);
    }
  });
}

// ---- what kernels call ----

int barrier(const Site *at, bool predicate, Vote vote) {
  Executor &e = *executor;
  Thread &me = *e.current;
  if (e.at_barrier == 0)
    e.barrier_at = at;
  else if (e.barrier_at != at)
    e.fail(&me, LAUNCH_FAILED, "diverged barrier: it waits in %s, others wait in %s", place(at).c_str(),
           place(e.barrier_at).c_str());
  me.at = at;
  me.state = AT_BARRIER;
  e.at_barrier++;
  e.votes += predicate;
  e.wait(me);
  return vote == COUNT ? int(e.result) : vote == ALL ? int(e.result == e.count) : int(e.result != 0);
}

uint64_t exchange(const Site *at, unsigned mask, uint64_t value, unsigned from) {
  Executor &e = *executor;
  Thread &me = *e.current;
  me.at = at;
  me.mask = mask;
  me.value = value;
  me.from = from;
  join_warp(e, me);
  return me.value;
}

unsigned ballot(const Site *at, unsigned mask, bool predicate) {
  return unsigned(exchange(at, mask, predicate, kBallot));
}

unsigned lane() { return executor->current->lane; }

char *shared_first(Shared *s) {
  Executor &e = *executor;
  if (__atomic_load_n(&s->id, __ATOMIC_RELAXED) < 0) {
    static int ids;
    if (ids == int(kMaxSharedArrays))
      e.fail(e.current, LAUNCH_FAILED, "more than %u shared arrays in all kernels together", kMaxSharedArrays);
    __atomic_store_n(&s->id, ids++, __ATOMIC_RELAXED);
  }
  e.shared_bytes += (s->bytes + 15) & ~size_t(15);
  if (e.shared_bytes > kMaxSharedBytes)
    e.fail(e.current, LAUNCH_FAILED, "the block takes %zu bytes of shared memory with array %s, and may have %zu",
           e.shared_bytes, s->name, kMaxSharedBytes);
  return e.fill(s->id, s->name, s->bytes);
}

char *shared_dynamic(const Site *at) {
  Executor &e = *executor;
  if (e.launch->shared == 0) e.fail(e.current, LAUNCH_FAILED, "%s: the launch asked for none", place(at).c_str());
  char *p = e.ready[kMaxSharedArrays];
  return p ? p : e.fill(int(kMaxSharedArrays), "(dynamic)", e.launch->shared);
}

void fault(Result code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  executor->say(executor->current, code, format, arguments);
  va_end(arguments);
  executor->end_with(code);
}

void trap(const char *why) { executor->fail(executor->current, LAUNCH_FAILED, "%s", why); }

} // namespace emu
