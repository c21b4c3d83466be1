// Programs that differ in numbers only: the steps of one of them, and where the numbers go.
//
// The numbers of a program are, step by step: of a split, the extent that the search takes it for
// and the lengths of its parts; of an unroll pragma, its limit. The other steps have none.
#pragma once

#include <map>

#include "schedule.h"

namespace cdmpp {

class Skeleton {
 public:
  explicit Skeleton(std::string_view line) : line_(line) {
    steps_.resize(read_steps(line_, steps_));
    for (const Step& step : steps_) width_ += num_numbers(step);
  }
  Skeleton(const Skeleton&) = delete;
  Skeleton& operator=(const Skeleton&) = delete;

  Int width() const { return width_; }

  // The steps with other numbers; valid until the next call.
  const std::vector<Step>& filled(const Int* numbers) {
    for (Step& step : steps_) {
      if (step.kind == StepKind::SP) {
        ++numbers;  // extents are inferred
        for (Int& length : step.list) length = *numbers++;
      } else if (is_unroll(step)) {
        step.text = pragma(*numbers++);
      }
    }
    return steps_;
  }

 private:
  static constexpr std::string_view kUnroll = "auto_unroll_max_step$";

  static bool is_unroll(const Step& step) {
    return step.kind == StepKind::PR && step.text.substr(0, kUnroll.size()) == kUnroll;
  }

  static Int num_numbers(const Step& step) {
    if (step.kind == StepKind::SP) return 1 + static_cast<Int>(step.list.size());
    return is_unroll(step);
  }

  // The text of a pragma, kept because steps only point to theirs.
  std::string_view pragma(Int limit) {
    auto known = pragmas_.find(limit);
    if (known == pragmas_.end()) {
      known = pragmas_.emplace(limit, std::string(kUnroll) + std::to_string(limit)).first;
    }
    return known->second;
  }

  std::string line_;
  std::vector<Step> steps_;
  Int width_ = 0;
  std::map<Int, std::string> pragmas_;
};

// The stage that reads a stage: of several that stand in the loops of one, that one; else -1.
inline Int consumer_of(Schedule& schedule, std::size_t number) {
  const std::vector<Stage*>& stages = schedule.stages();
  const auto& consumers = schedule.flattened().consumers[number];
  if (consumers.empty()) return -1;
  auto first = static_cast<Int>(consumers.front().stage);
  auto root_of = [&](Int stage) {
    const Stage* target = stages[static_cast<std::size_t>(stage)]->attached_to;
    return target ? Int{target->number} : stage;
  };
  bool one = true, one_root = true;
  for (const auto& consumer : consumers) {
    one = one && consumer.stage == first;
    one_root = one_root && root_of(consumer.stage) == root_of(first);
  }
  return one ? first : one_root ? root_of(first) : -1;
}

// Of every stage: whether it has loops (1; 0 for inputs and what is inlined), its number of axes,
// its consumer, the stage it is attached to and at which of its loops (-1 for none), then its loops,
// preceded by their number: whether it reduces, its kind.
inline void pack_loops(Schedule& schedule, std::vector<Int>& out) {
  const RewriteNode& node = schedule.node();
  const std::vector<Stage*>& stages = schedule.stages();
  out.push_back(static_cast<Int>(stages.size()));
  for (std::size_t number = 0; number < stages.size(); ++number) {
    const Stage& stage = *stages[number];
    const Spec& spec = *node.specs[number];
    Int target = -1, at = -1;
    if (stage.attached_to) {
      const std::vector<int>& order = stage.attached_to->order;
      target = stage.attached_to->number;
      at = std::find(order.begin(), order.end(), stage.attached_at) - order.begin();
    }
    bool has_loops = !spec.is_placeholder && !node.inlined[number];
    out.insert(out.end(), {has_loops, static_cast<Int>(spec.extents.size()),
                           consumer_of(schedule, number), target, at,
                           static_cast<Int>(stage.order.size())});
    for (int iterator : stage.order) {
      auto place = static_cast<std::size_t>(iterator);
      out.insert(out.end(), {stage.is_reduce[place], stage.kind[place]});
    }
  }
}

}  // namespace cdmpp
