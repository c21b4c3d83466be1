// The analysed compute DAG of a task (`tvm_cdmpp.extract.stage`), as sent over by Python.
#pragma once

#include <array>
#include <stdexcept>
#include <string>

#include "index.h"
#include "leaf.h"

namespace cdmpp {

// What may be done with the layout of an input that is read (`tvm_cdmpp.extract.stage.ReadLayout`).
enum ReadLayout : int { kGiven, kFree, kNotRewritable };

// One access to a producer: its stage number, which of its results, and one index per dimension.
struct Read {
  int stage;
  int output;
  std::shared_ptr<const Indices> indices;
  ReadLayout layout = kGiven;
};

// `low <= index <= high`.
struct Condition {
  Int low, high;
  Index index;
};

// A choice between two values; TVM drops the parts of its condition that always hold.
struct Choice {
  Int num_parts;
  std::vector<Condition> conditions;  // those of the parts that compare indices
};

// One operation. Axes are numbered spatial first, then reduction.
struct Spec {
  int origin = 0;  // operation of the DAG
  Int element_bytes = 0;
  Int float_bytes = 0;
  Int int_bytes = 0;
  // The results of a stage that computes several at once; empty for one. `reads` above are those
  // of all of them.
  std::vector<std::shared_ptr<const Spec>> outputs;
  std::vector<Int> peers;    // of one of several results: others whose sums so far it reads
  std::vector<Int> sources;  // the same for what it adds up, should the reduction be factored
  std::vector<Choice> choices;  // the outermost first
  Int guard = -1;        // which constant a condition around everything stores instead
  Int guarded_read = -1;  // the read that this condition guards
  int scope = kUnset;
  bool is_placeholder = false;
  bool is_output = false;    // nothing reads it
  bool is_returned = false;  // the caller gives its memory
  int num_spatial = 0;
  std::vector<Int> shape;
  std::vector<Int> extents;
  std::vector<Read> reads;
  OpCounts ops{};          // of the stored expression; for a reduction, of its source
  OpCounts combine_ops{};  // what a reduction adds to combine one more value

  std::size_t num_outputs() const { return outputs.empty() ? 1 : outputs.size(); }
  const Spec& output(std::size_t number) const { return outputs.empty() ? *this : *outputs[number]; }
  bool has_reduction() const { return static_cast<int>(extents.size()) > num_spatial; }
};

using SpecPtr = std::shared_ptr<const Spec>;

// Reads integers one after the other.
class IntReader {
 public:
  IntReader(const Int* data, Int length) : next_(data), end_(data + length) {}

  Int operator()() {
    if (next_ == end_) throw std::out_of_range("encoded data end too early");
    return *next_++;
  }

  std::vector<Int> list() {
    std::vector<Int> values(static_cast<std::size_t>((*this)()));
    for (Int& value : values) value = (*this)();
    return values;
  }

 private:
  const Int* next_;
  const Int* end_;
};

inline Index read_index(IntReader& read) {
  Index index;
  index.constant = read();
  for (Int n = read(); n > 0; --n) {
    Term term{static_cast<Term::Kind>(read()), 0, nullptr, 0};
    term.coefficient = read();
    term.number = read();
    if (term.kind != Term::kAxis) term.inner = std::make_shared<const Index>(read_index(read));
    // Through `add`, for its order of terms.
    index = add(index, {{term}, 0});
  }
  return index;
}

inline OpCounts read_ops(IntReader& read) {
  OpCounts ops;
  for (Int& count : ops) count = read();
  return ops;
}

inline SpecPtr read_spec(IntReader& read, int origin) {
  Spec spec;
  spec.origin = origin;
  spec.element_bytes = read();
  spec.float_bytes = read();
  spec.int_bytes = read();
  spec.guard = read();
  spec.guarded_read = read();
  spec.is_placeholder = read() != 0;
  spec.is_output = read() != 0;
  spec.is_returned = read() != 0;
  spec.num_spatial = static_cast<int>(read());
  spec.shape = read.list();
  spec.extents = read.list();
  spec.ops = read_ops(read);
  spec.combine_ops = read_ops(read);
  for (Int n = read(); n > 0; --n) {
    int stage = static_cast<int>(read());
    int output = static_cast<int>(read());
    auto layout = static_cast<ReadLayout>(read());
    Indices indices(static_cast<std::size_t>(read()));
    for (Index& index : indices) index = read_index(read);
    spec.reads.push_back(
        {stage, output, std::make_shared<const Indices>(std::move(indices)), layout});
  }
  for (Int n = read(); n > 0; --n) {
    Choice choice{read(), std::vector<Condition>(static_cast<std::size_t>(read()))};
    for (Condition& condition : choice.conditions) {
      condition.low = read();
      condition.high = read();
      condition.index = read_index(read);
    }
    spec.choices.push_back(std::move(choice));
  }
  spec.peers = read.list();
  spec.sources = read.list();
  for (Int n = read(); n > 0; --n) spec.outputs.push_back(read_spec(read, origin));
  return std::make_shared<const Spec>(std::move(spec));
}

inline std::vector<SpecPtr> read_graph(IntReader& read) {
  std::vector<SpecPtr> stages;
  for (Int n = read(); n > 0; --n) {
    stages.push_back(read_spec(read, static_cast<int>(stages.size())));
  }
  return stages;
}

}  // namespace cdmpp
