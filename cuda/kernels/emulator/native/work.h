// Streams, events, captures and graphs, and the order in which their work is done.
//
// In order 0 work is done when it is submitted. In the other orders it is kept back until the host waits for
// it, and the streams' queues are run against each other as late (1) or as arbitrarily (a seed) as events
// allow; a graph's nodes run in the last (1) or an arbitrary order that its edges allow. So work that lacks an
// event or an edge sees wrong data.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "executor.h"

namespace emu {

using Task = std::function<Result()>;
struct Stream;
struct Capture;

// Mark is one recording of an event.
struct Mark {
  bool done = false;
  double ms = 0;
  Stream *stream = nullptr; // in whose queue it waits, while it is not done
};

struct Event {
  bool timing = false;
  std::shared_ptr<Mark> mark;       // null: never recorded, or recorded in a capture
  std::shared_ptr<Capture> capture; // the last recording was in it, at tips
  std::vector<int> tips;
};

struct Item {
  Task run;                   // or
  std::shared_ptr<Mark> mark; // one to record, or to wait for
  bool wait = false;
};

struct Stream {
  std::deque<Item> queue;
  std::shared_ptr<Capture> capture; // it is being captured into
  std::vector<int> tips;            // nodes that the next one depends on
};

struct Node {
  Task run;
  std::vector<int> after;
};

struct Graph {
  std::vector<Node> nodes;
};

enum CaptureMode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
  CaptureMode mode;
  unsigned long thread;
  Stream *origin;
  std::vector<Stream *> streams; // with origin
  std::vector<Node> nodes;
  bool invalid = false, ended = false;
};

unsigned order();
// set_order first finishes what waits in the streams.
void set_order(unsigned o);
uint64_t launch_seed(); // another one for each launch

// sticky is the fault that the context has had, SUCCESS while it has had none.
Result sticky();
void set_sticky(Result r);

std::shared_ptr<Stream> new_stream();
// end_stream drops a stream once its work is done.
void end_stream(const std::shared_ptr<Stream> &s);
void end_all_streams(); // with the work that waits in them

Result submit(Stream *s, Task t);
Result record(Event *e, Stream *s);
Result wait_event(Stream *s, const Event &e);
Result finish_stream(Stream *s);
Result finish_mark(const std::shared_ptr<Mark> &m);
Result finish_all();
// advance does one piece of work, so that a host that polls gets on.
void advance(Stream *s);

Result begin_capture(const std::shared_ptr<Stream> &s, CaptureMode mode);
Result end_capture(Stream *s, std::shared_ptr<Graph> *g);
// refuse_in_capture is CAPTURE_UNSUPPORTED, and the capture void, where a call that may synchronise is made
// during one.
Result refuse_in_capture(const char *call);
// refuse_any_capture is the same for calls that wait for all streams.
Result refuse_any_capture(const char *call);
Result void_capture(Stream *s, const char *call);
Result run_graph(const Graph &g);

} // namespace emu
