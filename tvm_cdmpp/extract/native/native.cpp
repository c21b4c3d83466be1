// The C interface to the fast path, called through ctypes by `tvm_cdmpp.extract.native`.
//
// A replayer belongs to one task. It keeps the results of its last call; everything it returns
// points into it. Nothing here is thread-safe for one replayer.

#include <chrono>

#include "features.h"
#include "handover.h"
#include "leaves.h"

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace cdmpp {
namespace {

Hardware read_hardware(const double* values) {
  return {values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]};
}

class Stopwatch {
 public:
  // Seconds since the last call.
  double lap() {
    auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

class Replayer {
 public:
  Replayer(std::vector<SpecPtr> graph, LayoutRewrite layout, const Hardware& hardware)
      : replay_(std::move(graph)), leaves_(layout, hardware), features_(hardware) {}

  // Extract all records of a text, one per line; return their number.
  Int extract(std::string_view text) {
    start();
    Stopwatch watch;
    auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
    while (!text.empty()) {
      std::size_t end = std::min(text.find('\n'), text.size());
      extract_one(text.substr(0, end), watch);
      text.remove_prefix(std::min(end + 1, text.size()));
      // Programs of a task have about as many leaves each; growing step by step costs copies.
      if (counts.size() == 1) vectors.reserve(vectors.size() * lines);
    }
    take_logarithms(vectors);
    seconds[2] += watch.lap();
    return static_cast<Int>(counts.size());
  }

  // The leaves of one record as integers; null if there is an error.
  const std::vector<Int>* pack_one(std::string_view line) {
    start();
    Stopwatch watch;
    packed_.clear();
    extract_one(line, watch);
    if (!errors.front().empty()) return nullptr;
    packed_.push_back(counts.front());
    for (const Leaf* leaf : *last_) pack(*leaf, packed_);
    return &packed_;
  }

  // Give the memory of the results back; a search has many tasks, and works on one at a time.
  void release() {
    vectors = {};
    positions = {};
    counts = {};
    excesses = {};
    errors = {};
  }

  std::vector<float> vectors;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> counts;
  std::vector<Excess> excesses;
  std::vector<std::string> errors;
  double seconds[3] = {0, 0, 0};  // parse, replay, features

 private:
  void start() {
    vectors.clear();
    positions.clear();
    counts.clear();
    excesses.clear();
    errors.clear();
  }

  void extract_one(std::string_view line, Stopwatch& watch) {
    std::string error;
    std::int32_t count = 0;
    try {
      std::size_t num_steps = read_steps(line, steps_);
      seconds[0] += watch.lap();
      replay_.run(steps_, num_steps);
      last_ = &leaves_.of(replay_, num_steps > 0);
      seconds[1] += watch.lap();
      features_.append(*last_, vectors);
      for (const Leaf* leaf : *last_) positions.push_back(static_cast<std::int32_t>(leaf->position));
      count = static_cast<std::int32_t>(last_->size());
      seconds[2] += watch.lap();
    } catch (const RecordError& problem) {
      error = problem.message;
    } catch (const std::exception& problem) {
      error = std::string("The record cannot be replayed: ") + problem.what() + ".";
    }
    counts.push_back(count);
    excesses.push_back(error.empty() ? leaves_.excess() : Excess{});
    errors.push_back(std::move(error));
  }

  Replay replay_;
  Leaves leaves_;
  Features features_;
  std::vector<Step> steps_;
  std::vector<Int> packed_;
  const std::vector<Leaf*>* last_ = nullptr;
};

}  // namespace cdmpp

using namespace cdmpp;

// Make a replayer from an encoded graph (see graph.h); null if the encoding is broken.
EXPORT void* cdmpp_new(const Int* graph, Int length, int layout, const double* hardware) {
  try {
    IntReader read(graph, length);
    return new Replayer(read_graph(read), static_cast<LayoutRewrite>(layout), read_hardware(hardware));
  } catch (const std::exception&) {
    return nullptr;
  }
}

EXPORT void cdmpp_free(void* replayer) { delete static_cast<Replayer*>(replayer); }

EXPORT Int cdmpp_extract(void* replayer, const char* text, Int length) {
  return static_cast<Replayer*>(replayer)->extract({text, static_cast<std::size_t>(length)});
}

EXPORT void cdmpp_release(void* replayer) { static_cast<Replayer*>(replayer)->release(); }

// What the last call made, until `release`: vectors [leaf][field], positions [leaf], leaf counts [record].
EXPORT const float* cdmpp_vectors(void* replayer) {
  return static_cast<Replayer*>(replayer)->vectors.data();
}

EXPORT const std::int32_t* cdmpp_positions(void* replayer) {
  return static_cast<Replayer*>(replayer)->positions.data();
}

EXPORT const std::int32_t* cdmpp_counts(void* replayer) {
  return static_cast<Replayer*>(replayer)->counts.data();
}

// Which limit every program of the last call exceeds, got and allowed; [record][3], -1 for none.
EXPORT const Int* cdmpp_excesses(void* replayer) {
  static_assert(sizeof(Excess) == 3 * sizeof(Int));
  return reinterpret_cast<const Int*>(static_cast<Replayer*>(replayer)->excesses.data());
}

// What is wrong with a record of the last call; empty if nothing is.
EXPORT const char* cdmpp_error(void* replayer, Int record) {
  return static_cast<Replayer*>(replayer)->errors[static_cast<std::size_t>(record)].c_str();
}

// Seconds spent so far in parsing, replay and features.
EXPORT const double* cdmpp_seconds(void* replayer) {
  return static_cast<Replayer*>(replayer)->seconds;
}

// The leaves of one record as integers (see leaf.h), preceded by their number; null on an error.
EXPORT const Int* cdmpp_leaves(void* replayer, const char* line, Int length, Int* size) {
  const auto* packed =
      static_cast<Replayer*>(replayer)->pack_one({line, static_cast<std::size_t>(length)});
  *size = packed ? static_cast<Int>(packed->size()) : 0;
  return packed ? packed->data() : nullptr;
}

// Describe the packed leaves of one program; returns 0 if the packing is broken.
EXPORT int cdmpp_describe(const Int* packed, Int length, const double* hardware, float* vectors) {
  try {
    IntReader read(packed, length);
    std::vector<Leaf> leaves;
    for (Int n = read(); n > 0; --n) leaves.push_back(unpack<IntReader>(read));
    std::vector<Leaf*> pointers;
    for (Leaf& leaf : leaves) pointers.push_back(&leaf);
    std::vector<float> rows;
    Features(read_hardware(hardware)).append(pointers, rows);
    take_logarithms(rows);
    std::copy(rows.begin(), rows.end(), vectors);
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}

// Append states, as lines of an Ansor log, to a file; returns 0 if TVM failed (see handover.h).
EXPORT int cdmpp_hand_over(const TVMFunctions* tvm, void* task, void* states, Int count,
                           void* result, const char* path) {
  return HandOver(*tvm).run(task, states, count, result, path);
}

// Names of the fields, in order, separated by spaces; and whether each is a logarithm.
EXPORT const char* cdmpp_field_names() { return field_names().names.c_str(); }
EXPORT const float* cdmpp_field_is_log() { return field_names().is_log.data(); }
