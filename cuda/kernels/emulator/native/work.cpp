#include "work.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <set>

namespace emu {
namespace {

constexpr size_t kBacklog = 4096; // pieces of work that may wait

struct Scheduler {
  unsigned order = 0;
  uint64_t launches = 0;
  Random random{0};
  Result sticky = SUCCESS;
  size_t waiting = 0;
  std::vector<std::shared_ptr<Stream>> streams, ended; // ended: destroyed with work left
  std::vector<std::shared_ptr<Capture>> captures;      // under way
};
Scheduler &the() {
  static Scheduler *s = new Scheduler; // never freed: the process may end while the library is used
  return *s;
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) * 1e3 + double(t.tv_nsec) / 1e6;
}

void complete(Mark *m) {
  m->done = true;
  m->ms = now();
  m->stream = nullptr;
}

void drop_work() {
  auto &s = the();
  for (auto *list : {&s.streams, &s.ended})
    for (auto &stream : *list) stream->queue.clear();
  s.ended.clear();
  s.waiting = 0;
}

bool blocked(const Stream &s) { return s.queue.front().wait && !s.queue.front().mark->done; }

// run_head does the first piece of work of a stream.
void run_head(Stream *s) {
  Item item = std::move(s->queue.front());
  s->queue.pop_front();
  the().waiting--;
  if (item.run) {
    if (Result r = item.run()) set_sticky(r);
  } else if (!item.wait) {
    complete(item.mark.get());
  }
}

// step does one piece of work: in order 1 what target needs, else of any stream. target null: of the newest
// stream first. False: nothing is left to do.
bool step(Stream *target) {
  auto &s = the();
  if (s.waiting == 0) return false;
  std::vector<Stream *> able;
  for (auto *list : {&s.ended, &s.streams})
    for (auto &stream : *list)
      if (!stream->queue.empty() && !blocked(*stream)) able.push_back(stream.get());
  Stream *chosen = able.back();
  if (s.order > 1) {
    chosen = able[s.random.below(uint32_t(able.size()))];
  } else if (target && !target->queue.empty()) {
    chosen = target;
    while (blocked(*chosen)) chosen = chosen->queue.front().mark->stream;
  }
  run_head(chosen);
  s.ended.erase(
      std::remove_if(s.ended.begin(), s.ended.end(), [](const std::shared_ptr<Stream> &e) { return e->queue.empty(); }),
      s.ended.end());
  return true;
}

Result enqueue(Stream *s, Item item) {
  auto &all = the();
  s->queue.push_back(std::move(item));
  all.waiting++;
  if (all.order == 0) return finish_stream(s);
  if (all.waiting > kBacklog)
    while (all.waiting > kBacklog / 2 && step(nullptr)) {
    }
  return all.sticky;
}

unsigned long this_thread() { return static_cast<unsigned long>(pthread_self()); }

void merge(std::vector<int> *into, const std::vector<int> &more) {
  for (int m : more)
    if (std::find(into->begin(), into->end(), m) == into->end()) into->push_back(m);
}

void end(const std::shared_ptr<Capture> &c) {
  auto &list = the().captures;
  list.erase(std::remove(list.begin(), list.end(), c), list.end());
  c->ended = true;
  for (Stream *s : c->streams) {
    s->capture.reset();
    s->tips.clear();
  }
}

// joined is whether every node is an ancestor of the origin's last ones or among them.
bool joined(const Capture &c) {
  std::vector<bool> reached(c.nodes.size());
  std::vector<int> open = c.origin->tips;
  while (!open.empty()) {
    const int n = open.back();
    open.pop_back();
    if (reached[size_t(n)]) continue;
    reached[size_t(n)] = true;
    for (int a : c.nodes[size_t(n)].after) open.push_back(a);
  }
  for (Stream *s : c.streams)
    for (int t : s->tips)
      if (!reached[size_t(t)]) return false;
  return true;
}

Result invalidate(Capture *c, const char *call, Result r, const char *why) {
  c->invalid = true;
  report("%s: %s; the capture is void", call, why);
  return r;
}

} // namespace

unsigned order() { return the().order; }

void set_order(unsigned o) {
  finish_all();
  the().order = o;
  the().launches = 0;
  the().random.state = o;
}

uint64_t launch_seed() { return uint64_t(the().order) << 32 ^ ++the().launches; }

Result sticky() { return the().sticky; }

void set_sticky(Result r) {
  the().sticky = r;
  if (r != SUCCESS) drop_work();
}

std::shared_ptr<Stream> new_stream() {
  auto s = std::make_shared<Stream>();
  the().streams.push_back(s);
  return s;
}

void end_stream(const std::shared_ptr<Stream> &s) {
  auto &all = the();
  all.streams.erase(std::remove(all.streams.begin(), all.streams.end(), s), all.streams.end());
  if (!s->queue.empty()) all.ended.push_back(s);
}

void end_all_streams() {
  auto &s = the();
  drop_work();
  while (!s.captures.empty()) end(s.captures.back());
  s.streams.clear();
}

Result submit(Stream *s, Task t) {
  if (!s->capture) return enqueue(s, {std::move(t), nullptr, false});
  Capture &c = *s->capture;
  if (c.invalid) return CAPTURE_INVALIDATED;
  c.nodes.push_back({std::move(t), s->tips});
  s->tips = {int(c.nodes.size()) - 1};
  return SUCCESS;
}

Result record(Event *e, Stream *s) {
  e->capture = s->capture;
  e->tips = s->tips;
  e->mark.reset();
  if (s->capture) return s->capture->invalid ? CAPTURE_INVALIDATED : SUCCESS;
  e->mark = std::make_shared<Mark>();
  e->mark->stream = s;
  return enqueue(s, {nullptr, e->mark, false});
}

Result wait_event(Stream *s, const Event &e) {
  if (e.capture) {
    if (e.capture->ended) {
      report("cuStreamWaitEvent: the event was recorded in a capture that is over");
      return INVALID_VALUE;
    }
    if (e.capture->invalid) return CAPTURE_INVALIDATED;
    if (!s->capture) {
      s->capture = e.capture;
      s->tips = e.tips;
      e.capture->streams.push_back(s);
      return SUCCESS;
    }
    if (s->capture != e.capture) {
      s->capture->invalid = true;
      return invalidate(e.capture.get(), "cuStreamWaitEvent", CAPTURE_MERGE, "two captures would be merged");
    }
    merge(&s->tips, e.tips);
    return SUCCESS;
  }
  if (s->capture) {
    if (s->capture->invalid) return CAPTURE_INVALIDATED;
    if (!e.mark) return SUCCESS;
    return invalidate(s->capture.get(), "cuStreamWaitEvent", CAPTURE_ISOLATION,
                      "a stream under capture waits for an event recorded outside");
  }
  if (!e.mark || e.mark->done) return SUCCESS;
  return enqueue(s, {nullptr, e.mark, true});
}

Result finish_stream(Stream *s) {
  while (!s->queue.empty() && step(s)) {
  }
  return the().sticky;
}

Result finish_mark(const std::shared_ptr<Mark> &m) {
  while (!m->done && step(m->stream)) {
  }
  return the().sticky;
}

Result finish_all() {
  while (step(nullptr)) {
  }
  return the().sticky;
}

void advance(Stream *s) { step(s); }

Result begin_capture(const std::shared_ptr<Stream> &s, CaptureMode mode) {
  auto c = std::make_shared<Capture>();
  c->mode = mode;
  c->thread = this_thread();
  c->origin = s.get();
  c->streams = {s.get()};
  s->capture = c;
  s->tips.clear();
  the().captures.push_back(c);
  return SUCCESS;
}

Result end_capture(Stream *s, std::shared_ptr<Graph> *g) {
  const std::shared_ptr<Capture> c = s->capture;
  if (c->origin != s)
    return invalidate(c.get(), "cuStreamEndCapture", CAPTURE_UNMATCHED, "the capture was begun on another stream");
  if (c->mode != RELAXED && c->thread != this_thread()) {
    report("cuStreamEndCapture: the capture was begun on another thread");
    return CAPTURE_WRONG_THREAD;
  }
  Result r = SUCCESS;
  if (c->invalid) {
    r = CAPTURE_INVALIDATED;
  } else if (!joined(*c)) {
    report("cuStreamEndCapture: a stream that joined the capture has work that the first stream does not wait for");
    r = CAPTURE_UNJOINED;
  }
  end(c);
  if (r != SUCCESS) return r;
  *g = std::make_shared<Graph>();
  (*g)->nodes = std::move(c->nodes);
  return SUCCESS;
}

Result refuse_in_capture(const char *call) {
  for (auto &c : the().captures)
    if (c->mode == GLOBAL || (c->mode == THREAD_LOCAL && c->thread == this_thread()))
      return invalidate(c.get(), call, CAPTURE_UNSUPPORTED, "not allowed while a stream is captured");
  return SUCCESS;
}

Result refuse_any_capture(const char *call) {
  for (auto &c : the().captures)
    return invalidate(c.get(), call, CAPTURE_UNSUPPORTED, "not allowed while a stream is captured");
  return SUCCESS;
}

Result void_capture(Stream *s, const char *call) {
  return invalidate(s->capture.get(), call, CAPTURE_UNSUPPORTED, "not allowed on a stream that is captured");
}

Result run_graph(const Graph &g) {
  auto &s = the();
  const size_t n = g.nodes.size();
  if (s.order == 0) {
    for (const Node &node : g.nodes)
      if (Result r = node.run()) return r;
    return SUCCESS;
  }
  std::vector<std::vector<int>> before(n);
  std::vector<size_t> missing(n);
  std::set<int> able;
  for (size_t i = 0; i < n; i++) {
    missing[i] = g.nodes[i].after.size();
    for (int a : g.nodes[i].after) before[size_t(a)].push_back(int(i));
    if (missing[i] == 0) able.insert(int(i));
  }
  while (!able.empty()) {
    auto chosen = std::prev(able.end());
    if (s.order > 1) chosen = std::next(able.begin(), long(s.random.below(uint32_t(able.size()))));
    const int node = *chosen;
    able.erase(chosen);
    if (Result r = g.nodes[size_t(node)].run()) return r;
    for (int b : before[size_t(node)])
      if (--missing[size_t(b)] == 0) able.insert(b);
  }
  return SUCCESS;
}

} // namespace emu
