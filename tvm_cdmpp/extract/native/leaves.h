// The leaves of one candidate in pre-order, as TVM nests attached stages.
#pragma once

#include "nests.h"

namespace cdmpp {

class Leaves {
 public:
  explicit Leaves(bool rewrites_layout) : rewrites_layout_(rewrites_layout) {}

  // The leaves of a replayed record; valid until the next call.
  const std::vector<Leaf*>& of(Replay& replay) {
    replay_ = &replay;
    nests_ = &walk_.of(replay);
    leaves_.clear();
    pool_.reset();
    num_nodes_ = 0;
    outermost_ = -1;
    unroll_limit_ = 0;
    open_.clear();
    buffers_.clear();
    has_attached_.assign(nests_->size(), 0);
    for (const Nest* nest : *nests_) {
      const Stage* target = nest ? nest->stage->attached_to : nullptr;
      if (target) has_attached_[static_cast<std::size_t>(target->number)] = 1;
    }
    for (const Nest* nest : *nests_) {
      if (nest && nest->depth == 0) emit(*nest->stage);
    }
    return leaves_;
  }

 private:
  // A loop around the leaf that is next, if it is a node of the tree.
  struct OpenLoop {
    int position;  // in the path of the stage that owns it
    Int node;
    Loop loop;
  };

  enum class Role { kPlain, kInit, kUpdate, kThreadInit, kThreadUpdate, kThreadResult };

  Nest& nest_of(const Stage& stage) { return *(*nests_)[static_cast<std::size_t>(stage.number)]; }

  void emit(const Stage& stage) {
    Nest& nest = nest_of(stage);
    std::size_t open = open_.size();
    Int unroll = unroll_limit_;
    auto depth = static_cast<std::size_t>(nest.depth);
    auto common = depth + static_cast<std::size_t>(nest.num_common);
    bool reduces = nest.spec->has_reduction();
    for (std::size_t at = depth; at <= nest.path.size(); ++at) {
      if (at == common && reduces) emit_init(nest);
      if (at == nest.path.size()) break;
      enter(nest, at, nest.path[at].is_reduce);
      if (has_attached_[static_cast<std::size_t>(stage.number)]) {
        emit_attached(stage, nest.path[at].iterator);
      }
    }
    if (nest.crosses_threads) {
      emit_leaf(nest, Role::kThreadUpdate);
      while (open_.size() > open && open_.back().position >= static_cast<int>(common)) {
        open_.pop_back();
      }
      emit_leaf(nest, Role::kThreadResult);
    } else {
      emit_leaf(nest, reduces ? Role::kUpdate : Role::kPlain);
    }
    open_.resize(open);
    unroll_limit_ = unroll;
  }

  void emit_attached(const Stage& target, int iterator) {
    for (Nest* nest : *nests_) {
      if (nest && nest->stage->attached_to == &target && nest->stage->attached_at == iterator) {
        emit(*nest->stage);
      }
    }
  }

  // The init leaf, under its own copy of the spatial loops that follow.
  void emit_init(const Nest& nest) {
    if (nest.crosses_threads) {
      emit_leaf(nest, Role::kThreadInit);
      return;
    }
    std::size_t open = open_.size();
    Int unroll = unroll_limit_;
    for (auto at = static_cast<std::size_t>(nest.depth + nest.num_common); at < nest.path.size();
         ++at) {
      if (!nest.path[at].is_reduce) enter(nest, at, false);
    }
    emit_leaf(nest, Role::kInit);
    open_.resize(open);
    unroll_limit_ = unroll;
  }

  void enter(const Nest& nest, std::size_t at, bool is_reduce) {
    const PathLoop& loop = nest.path[at];
    // TVM loses the pragma on a loop that is bound to a GPU index.
    if (loop.iterator == nest.stage->unroll_at && !is_bound(loop.kind)) {
      unroll_limit_ = nest.stage->unroll_limit;
    }
    bool repeats = loop.advances_at != static_cast<int>(at) && loop.advances_at != kNowhere;
    if (loop.extent == 1 || repeats) return;
    bool reduces = is_reduce && !(nest.crosses_threads && is_bound(loop.kind));
    open_.push_back({static_cast<int>(at), ++num_nodes_, {loop.extent, loop.kind, reduces}});
  }

  void emit_leaf(const Nest& nest, Role role) {
    const Spec& spec = *nest.spec;
    Leaf& leaf = *pool_.take();
    leaf.position = 2 * ++num_nodes_ - (static_cast<Int>(open_.size()) + 1);
    Int outermost = open_.empty() ? num_nodes_ : open_.front().node;
    leaf.nest = leaves_.empty() ? 0 : leaves_.back()->nest + (outermost != outermost_);
    outermost_ = outermost;
    bool in_registers = role == Role::kThreadInit || role == Role::kThreadUpdate;
    leaf.buffer = buffer_number(2 * nest.stage->number + in_registers);
    leaf.origin = spec.origin;
    leaf.is_init = role == Role::kInit || role == Role::kThreadInit;
    leaf.unroll_limit = unroll_limit_;
    leaf.ops = {};
    bool computes = !leaf.is_init && role != Role::kThreadResult;
    if (computes) {
      leaf.ops = spec.ops;
      add_ops(leaf.ops, spec.combine_ops);
    }
    leaf.compute_bytes = computes ? spec.compute_bytes : 0;
    leaf.loops.clear();
    for (const OpenLoop& open : open_) {
      bool own = open.position >= nest.depth;
      leaf.loops.push_back({open.loop.extent, open.loop.kind, own && open.loop.is_reduce});
    }
    num_accesses_ = 0;
    if (in_registers) {
      add_register(leaf, nest);
    } else {
      add_access(leaf, nest, nest.stage->number, nullptr);
    }
    if (role == Role::kThreadResult) add_register(leaf, nest);
    if (computes) {
      for (const Read& read : spec.reads) add_access(leaf, nest, read.stage, read.indices.get());
    }
    leaf.accesses.resize(num_accesses_);
    leaves_.push_back(&leaf);
  }

  int buffer_number(int key) {
    auto found = std::find(buffers_.begin(), buffers_.end(), key);
    if (found == buffers_.end()) found = buffers_.insert(found, key);
    return static_cast<int>(found - buffers_.begin());
  }

  Access& next_access(Leaf& leaf) {
    if (num_accesses_ == leaf.accesses.size()) leaf.accesses.emplace_back();
    return leaf.accesses[num_accesses_++];
  }

  // The variable in which a thread keeps its part of a reduction.
  void add_register(Leaf& leaf, const Nest& nest) {
    Access& access = next_access(leaf);
    int inner = nest.depth + nest.num_common;
    access.element_bytes = nest.spec->element_bytes;
    access.scope = kLocal;
    access.is_inside = !open_.empty() && open_.front().position < inner;
    access.shape.assign(1, 1);
    access.cover.assign(leaf.loops.size() + 1, 1);
    access.steps.assign(leaf.loops.size(), 0);
  }

  // An access to the result of stage `number`; without indices, to the element that is stored.
  void add_access(Leaf& leaf, const Nest& nest, int number, const Indices* indices) {
    Access& access = next_access(leaf);
    const Spec& buffer = *replay_->flattened().specs[static_cast<std::size_t>(number)];
    const Nest* producer = (*nests_)[static_cast<std::size_t>(number)];
    access.element_bytes = buffer.element_bytes;
    access.scope = producer ? producer->scope : kGlobal;
    access.is_inside = false;
    if (producer) {
      for (int at = 0; at < producer->depth; ++at) {
        const PathLoop& loop = producer->path[static_cast<std::size_t>(at)];
        access.is_inside = access.is_inside || loop.extent > 1;
      }
    }
    access.shape = producer ? producer->region : buffer.shape;
    if (buffer.is_layout_free && rewrites_layout_ && indices) {
      rewrite_layout(nest, *indices, access.shape);
      indices = &rewritten_;
    }
    std::size_t dims = access.shape.size(), loops = leaf.loops.size();
    access.cover.resize(dims * (loops + 1));
    access.steps.assign(loops, 0);
    Int neighbour = 1;
    for (std::size_t dim = dims; dim-- > 0;) {
      const LoopIndex* index = &nest.axes[dim];
      if (indices) {
        index_ = in_loops((*indices)[dim], nest.axes, nest.loop_extents);
        index = &index_;
      }
      Int reach = 1, shape = access.shape[dim];
      access.cover[dim * (loops + 1) + loops] = 1;
      for (std::size_t loop = loops; loop-- > 0;) {
        auto at = static_cast<std::size_t>(open_[loop].position);
        reach += std::abs(index->coefficients[at]) * (nest.loop_extents[at] - 1);
        Int curved = index->curved_span(at, nest.loop_extents);
        access.cover[dim * (loops + 1) + loop] = std::min(reach + curved, shape);
        access.steps[loop] += neighbour * index->step_of(at);
      }
      neighbour *= shape;
    }
    for (Int& step : access.steps) step = std::abs(step);
  }

  // Give a constant input the layout in which it is read (GetNewLayout in compute_dag.cc): one
  // dimension per loop over one of its axes, in the order of the loops.
  void rewrite_layout(const Nest& nest, const Indices& indices, std::vector<Int>& shape) {
    std::vector<std::pair<Int, Int>> layout;  // dimension of the input, extent
    auto dimension_of = [&indices](Int axis) {
      for (std::size_t dim = 0; dim < indices.size(); ++dim) {
        const auto& terms = indices[dim].terms;
        if (terms.size() == 1 && terms[0].kind == Term::kAxis && terms[0].number == axis) {
          return static_cast<Int>(dim);
        }
      }
      return Int{-1};
    };
    std::vector<std::pair<Int, Int>> own = original_loops(nest, nest.stage->order);
    std::vector<std::pair<Int, Int>> loops;
    if (const Stage* target = nest.stage->attached_to) {
      auto end = std::find(target->order.begin(), target->order.end(), nest.stage->attached_at);
      loops = original_loops(nest_of(*target), {target->order.begin(), end + 1});
      // The outer loops are taken to be over the axes of the stage's own first loops.
      loops.resize(std::min(loops.size(), own.size()));
      for (std::size_t n = 0; n < loops.size(); ++n) loops[n].first = own[n].first;
    }
    loops.insert(loops.end(), own.begin(), own.end());
    for (const auto& [axis, extent] : loops) {
      Int dim = dimension_of(axis);
      if (dim >= 0) layout.emplace_back(dim, extent);
    }
    rewritten_.assign(layout.size(), {});
    shape.assign(layout.size(), 1);
    std::vector<Int> inner(indices.size(), 1);
    for (std::size_t n = layout.size(); n-- > 0;) {
      auto [dim, extent] = layout[n];
      auto at = static_cast<std::size_t>(dim);
      rewritten_[n] = remainder(divided(indices[at], inner[at]), extent);
      inner[at] *= extent;
      shape[n] = extent;
    }
  }

  // The axis and extent of every loop, fused ones taken apart.
  static std::vector<std::pair<Int, Int>> original_loops(const Nest& nest,
                                                         const std::vector<int>& order) {
    const Stage& stage = *nest.stage;
    std::vector<std::pair<Int, Int>> loops;
    for (int iterator : order) {
      auto fused = std::find_if(stage.relations.begin(), stage.relations.end(),
                                [iterator](const Relation& relation) {
                                  return !relation.is_split && relation.whole == iterator;
                                });
      if (fused == stage.relations.end()) {
        loops.emplace_back(axis_of(stage, iterator), nest.extents[static_cast<std::size_t>(iterator)]);
      } else {
        for (int part : fused->parts) {
          loops.emplace_back(axis_of(stage, part), nest.extents[static_cast<std::size_t>(part)]);
        }
      }
    }
    return loops;
  }

  static Int axis_of(const Stage& stage, int iterator) {
    for (auto relation = stage.relations.rbegin(); relation != stage.relations.rend(); ++relation) {
      const auto& parts = relation->parts;
      if (relation->is_split && std::count(parts.begin(), parts.end(), iterator)) {
        iterator = relation->whole;
      }
    }
    return iterator;
  }

  bool rewrites_layout_;
  Replay* replay_ = nullptr;
  Nests walk_;
  const std::vector<Nest*>* nests_ = nullptr;
  Pool<Leaf> pool_;
  std::vector<Leaf*> leaves_;
  std::size_t num_accesses_ = 0;
  Int num_nodes_ = 0;
  Int outermost_ = -1;
  Int unroll_limit_ = 0;
  std::vector<OpenLoop> open_;
  std::vector<char> has_attached_;  // [stage]
  std::vector<int> buffers_;  // 2 * stage, + 1 for a thread's own part of a reduction
  Indices rewritten_;
  LoopIndex index_;
};

}  // namespace cdmpp
