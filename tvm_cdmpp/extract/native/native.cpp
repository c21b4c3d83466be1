// The C interface to the fast path, called through ctypes by `tvm_cdmpp.extract.native`.
//
// An extractor belongs to one task. It keeps the results of its last call; everything it returns
// points into it. Nothing here is thread-safe for one extractor.

#include <chrono>

#include "features.h"
#include "handover.h"
#include "leaves.h"
#include "skeleton.h"

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

class Extractor {
 public:
  Extractor(std::vector<SpecPtr> graph, LayoutRewrite layout, const Hardware& hardware)
      : schedule_(std::move(graph)), leaves_(layout, hardware), features_(hardware) {}

  // Extract all records of a text, one per line; return their number.
  Int extract(std::string_view text) {
    start();
    Stopwatch watch;
    auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
    counts.reserve(lines);
    excesses.reserve(lines);
    errors.reserve(lines);
    while (!text.empty()) {
      std::size_t end = std::min(text.find('\n'), text.size());
      extract_line(text.substr(0, end), watch);
      text.remove_prefix(std::min(end + 1, text.size()));
      reserve_after_first(lines);
    }
    seconds[2] += watch.lap();
    return static_cast<Int>(counts.size());
  }

  // Keep the steps of a record, to be given other numbers; return its number. Throws RecordError.
  Int add_skeleton(std::string_view line) {
    skeletons_.push_back(std::make_unique<Skeleton>(line));
    return static_cast<Int>(skeletons_.size()) - 1;
  }

  // Extract skeletons filled with numbers, [program][width]; those within all limits only.
  Int extract_numbers(const Int* which, const Int* numbers, Int width, Int count) {
    start();
    Stopwatch watch;
    for (Int n = 0; n < count; ++n) {
      extract_one(
          [&]() -> std::pair<const std::vector<Step>&, std::size_t> {
            Skeleton& skeleton = *skeletons_.at(static_cast<std::size_t>(which[n]));
            if (skeleton.width() > width) throw std::out_of_range("too few numbers");
            const std::vector<Step>& steps = skeleton.filled(numbers + n * width);
            return {steps, steps.size()};
          },
          watch, true);
      reserve_after_first(static_cast<std::size_t>(count));
    }
    seconds[2] += watch.lap();
    return count;
  }

  // The loops of every stage after the steps of a record, as integers (see skeleton.h).
  const std::vector<Int>* pack_loops_of(std::string_view line) {
    start();
    errors.emplace_back();
    packed_.clear();
    try {
      schedule_.run(steps_, read_steps(line, steps_));
      pack_loops(schedule_, packed_);
      return &packed_;
    } catch (RecordError& problem) {
      errors.back() = std::move(problem.message);
      return nullptr;
    }
  }

  // The leaves of one record as integers; null if there is an error.
  const std::vector<Int>* pack_one(std::string_view line) {
    start();
    Stopwatch watch;
    packed_.clear();
    extract_line(line, watch);
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
  double seconds[3] = {0, 0, 0};  // parse, apply, features

 private:
  static constexpr std::size_t kMostReserved = std::size_t{1} << 24;

  void start() {
    vectors.clear();
    positions.clear();
    counts.clear();
    excesses.clear();
    errors.clear();
  }

  // Programs of a task have about as many leaves each; growing step by step costs copies.
  void reserve_after_first(std::size_t programs) {
    if (counts.size() == 1) vectors.reserve(std::min(vectors.size() * programs, kMostReserved));
  }

  void extract_line(std::string_view line, Stopwatch& watch) {
    extract_one(
        [&]() -> std::pair<const std::vector<Step>&, std::size_t> {
          std::size_t num_steps = read_steps(line, steps_);
          return {steps_, num_steps};
        },
        watch);
  }

  // Extract the program whose steps, and how many of them, a function returns. With `within_limits`
  // one that exceeds a limit gets no leaves.
  template <class Read>
  void extract_one(const Read& read, Stopwatch& watch, bool within_limits = false) {
    std::size_t num_values = vectors.size(), num_leaves = positions.size();
    counts.push_back(0);
    excesses.emplace_back();
    errors.emplace_back();
    try {
      auto [steps, num_steps] = read();
      seconds[0] += watch.lap();
      schedule_.run(steps, num_steps);
      last_ = &leaves_.of(schedule_, num_steps > 0, within_limits);
      seconds[1] += watch.lap();
      excesses.back() = leaves_.excess();
      if (within_limits && excesses.back().limit >= 0) return;
      features_.append(*last_, vectors);
      for (const Leaf* leaf : *last_) positions.push_back(static_cast<std::int32_t>(leaf->position));
      counts.back() = static_cast<std::int32_t>(last_->size());
      seconds[2] += watch.lap();
      return;
    } catch (RecordError& problem) {
      errors.back() = std::move(problem.message);
    } catch (const std::bad_alloc&) {
      errors.back() = kNoMemory;
    } catch (const std::exception& problem) {
      errors.back() = std::string("The steps of the record cannot be applied: ") + problem.what() + ".";
    }
    // Leave no trace among the leaves of the others.
    vectors.resize(num_values);
    positions.resize(num_leaves);
  }

  // Short enough for a string without memory of its own.
  static constexpr const char* kNoMemory = "Out of memory.";

  Schedule schedule_;
  Leaves leaves_;
  Features features_;
  std::vector<Step> steps_;
  std::vector<std::unique_ptr<Skeleton>> skeletons_;
  std::vector<Int> packed_;
  const std::vector<Leaf*>* last_ = nullptr;
};

}  // namespace cdmpp

using namespace cdmpp;

// Call a function; no exception leaves it, `failed` is returned instead.
template <class Function, class Result>
static Result guarded(const Function& function, Result failed) {
  try {
    return function();
  } catch (...) {
    return failed;
  }
}

// Make an extractor from an encoded graph (see graph.h); null if the encoding is broken.
EXPORT void* cdmpp_new(const Int* graph, Int length, int layout, const double* hardware) {
  return guarded(
      [&] {
        IntReader read(graph, length);
        return static_cast<void*>(new Extractor(
            read_graph(read), static_cast<LayoutRewrite>(layout), read_hardware(hardware)));
      },
      static_cast<void*>(nullptr));
}

EXPORT void cdmpp_free(void* extractor) { delete static_cast<Extractor*>(extractor); }

// Return the number of records; -1 if there is no memory for the results of any.
EXPORT Int cdmpp_extract(void* extractor, const char* text, Int length) {
  return guarded(
      [&] {
        return static_cast<Extractor*>(extractor)->extract({text, static_cast<std::size_t>(length)});
      },
      Int{-1});
}

// Keep the steps of a record as a skeleton; returns its number, -1 if it is no record.
EXPORT Int cdmpp_add_skeleton(void* extractor, const char* line, Int length) {
  return guarded(
      [&] {
        return static_cast<Extractor*>(extractor)->add_skeleton(
            {line, static_cast<std::size_t>(length)});
      },
      Int{-1});
}

// Extract skeletons with numbers, [program][width]; returns as `cdmpp_extract` does.
EXPORT Int cdmpp_extract_numbers(void* extractor, const Int* skeletons, const Int* numbers,
                                 Int width, Int count) {
  return guarded(
      [&] {
        return static_cast<Extractor*>(extractor)->extract_numbers(skeletons, numbers, width, count);
      },
      Int{-1});
}

// The loops of the stages after a record's steps (see skeleton.h); null on an error.
EXPORT const Int* cdmpp_loops(void* extractor, const char* line, Int length, Int* size) {
  *size = -1;
  return guarded(
      [&]() -> const Int* {
        const auto* packed = static_cast<Extractor*>(extractor)->pack_loops_of(
            {line, static_cast<std::size_t>(length)});
        *size = packed ? static_cast<Int>(packed->size()) : 0;
        return packed ? packed->data() : nullptr;
      },
      static_cast<const Int*>(nullptr));
}

EXPORT void cdmpp_release(void* extractor) { static_cast<Extractor*>(extractor)->release(); }

// Copy some columns of the vectors that the last call made to `unscaled`, [leaf][column], and the
// vectors to `scaled`, the fields that are counts as logarithms; returns 0 if there is no memory.
EXPORT int cdmpp_scaled(const void* extractor, const Int* columns, Int num_columns, float* scaled,
                        float* unscaled) {
  return guarded(
      [&] {
        const auto& made = *static_cast<const Extractor*>(extractor);
        std::size_t num_leaves = made.positions.size();
        for (std::size_t leaf = 0; leaf < num_leaves; ++leaf) {
          const float* row = made.vectors.data() + leaf * num_fields();
          for (Int n = 0; n < num_columns; ++n) *unscaled++ = row[columns[n]];
          take_logarithms(row, 1, scaled + leaf * num_fields());
        }
        return 1;
      },
      0);
}

// What the last call made, until `release`: positions [leaf], leaf counts [record].
EXPORT const std::int32_t* cdmpp_positions(void* extractor) {
  return static_cast<Extractor*>(extractor)->positions.data();
}

EXPORT const std::int32_t* cdmpp_counts(void* extractor) {
  return static_cast<Extractor*>(extractor)->counts.data();
}

// Which limit every program of the last call exceeds, got and allowed; [record][3], -1 for none.
EXPORT const Int* cdmpp_excesses(void* extractor) {
  static_assert(sizeof(Excess) == 3 * sizeof(Int));
  return reinterpret_cast<const Int*>(static_cast<Extractor*>(extractor)->excesses.data());
}

// What is wrong with a record of the last call; empty if nothing is.
EXPORT const char* cdmpp_error(void* extractor, Int record) {
  return static_cast<Extractor*>(extractor)->errors[static_cast<std::size_t>(record)].c_str();
}

// Seconds spent so far in parsing, applying steps and features.
EXPORT const double* cdmpp_seconds(void* extractor) {
  return static_cast<Extractor*>(extractor)->seconds;
}

// The leaves of one record as integers (see leaf.h), preceded by their number; null on an error,
// with a size of -1 if there is no memory for them.
EXPORT const Int* cdmpp_leaves(void* extractor, const char* line, Int length, Int* size) {
  *size = -1;
  return guarded(
      [&]() -> const Int* {
        const auto* packed =
            static_cast<Extractor*>(extractor)->pack_one({line, static_cast<std::size_t>(length)});
        *size = packed ? static_cast<Int>(packed->size()) : 0;
        return packed ? packed->data() : nullptr;
      },
      static_cast<const Int*>(nullptr));
}

// Describe the packed leaves of one program; returns 0 if the packing is broken.
EXPORT int cdmpp_describe(const Int* packed, Int length, const double* hardware, float* vectors) {
  return guarded(
      [&] {
        IntReader read(packed, length);
        std::vector<Leaf> leaves;
        for (Int n = read(); n > 0; --n) leaves.push_back(unpack<IntReader>(read));
        std::vector<Leaf*> pointers;
        for (Leaf& leaf : leaves) pointers.push_back(&leaf);
        std::vector<float> rows;
        Features(read_hardware(hardware)).append(pointers, rows);
        take_logarithms(rows.data(), rows.size() / num_fields(), vectors);
        return 1;
      },
      0);
}

// Append states, as lines of an Ansor log, to a file; returns 0 if TVM failed (see handover.h), -1
// if there is no memory.
EXPORT int cdmpp_hand_over(const TVMFunctions* tvm, void* task, void* states, Int count,
                           void* result, const char* path) {
  return guarded([&] { return int{HandOver(*tvm).run(task, states, count, result, path)}; }, -1);
}

// Names of the fields, in order, separated by spaces; and whether each is a logarithm.
EXPORT const char* cdmpp_field_names() {
  return guarded([] { return field_names().names.c_str(); }, static_cast<const char*>(nullptr));
}
EXPORT const float* cdmpp_field_is_log() {
  return guarded([] { return field_names().is_log.data(); }, static_cast<const float*>(nullptr));
}
