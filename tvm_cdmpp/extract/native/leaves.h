// The leaves of one candidate in pre-order, as TVM nests attached stages.
#pragma once

#include "limits.h"
#include "nests.h"

namespace cdmpp {

// What becomes of constant inputs whose layout is free (`tvm_cdmpp.extract.stage.LayoutRewrite`).
enum LayoutRewrite : int { kAsGiven, kCopied, kRewritten };

class Leaves {
 public:
  Leaves(LayoutRewrite layout, const Hardware& hardware)
      : layout_(layout), cores_(hardware.cores), limits_(hardware) {}

  // What the program of the last call exceeds.
  const Excess& excess() const { return limits_.excess(); }

  // The leaves of a record whose steps were applied; valid until the next call. With `within_limits`
  // none are looked for after the first that exceeds a limit.
  const std::vector<Leaf*>& of(Schedule& schedule, bool has_steps, bool within_limits) {
    schedule_ = &schedule;
    within_limits_ = within_limits;
    rewrites_ = has_steps && layout_ != kAsGiven;  // TVM leaves an empty schedule alone
    nests_ = &walk_.of(schedule);
    leaves_.clear();
    pool_.reset();
    num_nodes_ = 0;
    outermost_ = -1;
    unroll_limit_ = 0;
    open_.clear();
    buffers_.clear();
    limits_.start();
    copies_.clear();
    stages_.reset();
    parts_nest_ = nullptr;
    has_attached_.assign(nests_->size(), 0);
    for (const Nest* nest : *nests_) {
      const Stage* target = nest ? nest->stage->attached_to : nullptr;
      if (target) has_attached_[static_cast<std::size_t>(target->number)] = 1;
    }
    auto num_stages = nests_->size();
    for (std::size_t number = 0; number < num_stages; ++number) {
      const Nest* nest = (*nests_)[number];
      if (!nest) continue;
      if (rewrites_) check_layouts(*nest);
      if (rewrites_ && layout_ == kCopied) emit_copies(*nest);
      if (nest->depth == 0) emit(*nest->stage);
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

  // One dimension of a rewritten layout: a digit of a dimension of the input.
  struct LayoutPart {
    std::size_t dim;
    Int extent;
    Int stride;

    LoopIndex of(const LoopIndex& index, const LoopInts& extents) const {
      if (extent == 1) return LoopIndex(extents.size());
      return Divider(extent, extents).remainder(Divider(stride, extents).quotient(index));
    }
  };

  // An index that conditions compare, and its bounds without its constant.
  struct Tested {
    const Index* index;
    LoopIndex loops;
    Int low, high;
  };

  // Stage, which of its results, whether it is a thread's own part of a reduction.
  using BufferKey = std::array<int, 3>;

  enum class Role { kPlain, kInit, kUpdate, kThreadInit, kThreadUpdate, kThreadResult };

  Nest& nest_of(const Stage& stage) { return *(*nests_)[static_cast<std::size_t>(stage.number)]; }

  void emit(const Stage& stage) {
    if (within_limits_ && limits_.excess().limit >= 0) return;
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
      emit_leaves(nest, Role::kThreadUpdate);
      while (open_.size() > open && open_.back().position >= static_cast<int>(common)) {
        open_.pop_back();
      }
      emit_leaves(nest, Role::kThreadResult);
    } else {
      emit_leaves(nest, reduces ? Role::kUpdate : Role::kPlain);
    }
    open_.resize(open);
    unroll_limit_ = unroll;
  }

  static void check_layouts(const Nest& nest) {
    for (const Read& read : nest.spec->reads) {
      if (read.layout != kNotRewritable) continue;
      throw RecordError{"TVM cannot build this program: stage " +
                        std::to_string(nest.stage->number) +
                        " wants the layout of an input rewritten that is read more than once. "
                        "Skip the record, or make the task without layout rewriting."};
    }
  }

  // The copies of this stage's constant inputs into the layout in which it reads them.
  void emit_copies(const Nest& nest) {
    for (const Read& read : nest.spec->reads) {
      if (read.layout != kFree) continue;
      const Spec& input = *schedule_->flattened().specs[static_cast<std::size_t>(read.stage)];
      auto spec = std::make_unique<Spec>();
      const std::vector<LayoutPart>& parts = rewrite_layout(nest, *read.indices);
      Indices indices(input.shape.size());
      for (std::size_t n = 0; n < parts.size(); ++n) {
        spec->shape.push_back(parts[n].extent);
        Index& index = indices[parts[n].dim];
        index.terms.push_back({Term::kAxis, static_cast<Int>(n), nullptr, parts[n].stride});
      }
      spec->element_bytes = input.element_bytes;
      spec->is_output = true;  // computed as a whole
      spec->num_spatial = static_cast<int>(parts.size());
      spec->extents = spec->shape;
      spec->reads = {{read.stage, read.output, std::make_shared<const Indices>(std::move(indices))}};
      Stage& stage = *stages_.take();
      stage.start(*spec);
      // The schedule that TVM gives it (RewriteLayout).
      std::size_t fused = parts.size() >= 5 ? 3 : parts.size() >= 3 ? 2 : 0;
      if (fused) {
        Relation relation{false, false, stage.add_iterator(false), {}, {}};
        relation.parts.copy(stage.order.begin(), stage.order.begin() + static_cast<Int>(fused));
        stage.order.erase(stage.order.begin(), stage.order.begin() + static_cast<Int>(fused) - 1);
        stage.order.front() = relation.whole;
        stage.relations.push_back(std::move(relation));
      }
      if (!stage.order.empty()) stage.kind[static_cast<std::size_t>(stage.order[0])] = kParallel;
      copies_.push_back(std::move(spec));
      walk_.append(stage, *copies_.back());
      has_attached_.push_back(0);
      emit(stage);
    }
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
      emit_leaves(nest, Role::kThreadInit);
      return;
    }
    std::size_t open = open_.size();
    Int unroll = unroll_limit_;
    for (auto at = static_cast<std::size_t>(nest.depth + nest.num_common); at < nest.path.size();
         ++at) {
      if (!nest.path[at].is_reduce) enter(nest, at, false);
    }
    emit_leaves(nest, Role::kInit);
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

  // One leaf for each result of the stage.
  void emit_leaves(const Nest& nest, Role role) {
    for (std::size_t n = 0; n < nest.spec->num_outputs(); ++n) {
      emit_leaf(nest, role, static_cast<int>(n));
    }
  }

  void emit_leaf(const Nest& nest, Role role, int output) {
    const Spec& spec = nest.spec->output(static_cast<std::size_t>(output));
    Leaf& leaf = *pool_.take();
    leaf.position = 2 * ++num_nodes_ - (static_cast<Int>(open_.size()) + 1);
    Int outermost = open_.empty() ? num_nodes_ : open_.front().node;
    leaf.nest = leaves_.empty() ? 0 : leaves_.back()->nest + (outermost != outermost_);
    outermost_ = outermost;
    int number = nest.stage->number;
    bool in_registers = role == Role::kThreadInit || role == Role::kThreadUpdate;
    std::size_t known = buffers_.size();
    leaf.buffer = buffer_number({number, output, in_registers});
    leaf.origin = spec.origin;
    leaf.is_init = role == Role::kInit || role == Role::kThreadInit;
    leaf.unroll_limit = unroll_limit_;
    leaf.loops.clear();
    for (const OpenLoop& open : open_) {
      bool own = open.position >= nest.depth;
      leaf.loops.push_back({open.loop.extent, open.loop.kind, own && open.loop.is_reduce});
    }
    parallel_ = parallel_loop(leaf.loops);
    if (parallel_ < open_.size()) {
      Int extent = leaf.loops[parallel_].extent;
      auto at = static_cast<std::size_t>(open_[parallel_].position);
      share_extents_.assign(2, nest.loop_extents);
      share_extents_[0][at] = 2;
      share_extents_[1][at] = iterations_of_core(extent, cores_);
    }
    leaf.ops = {};
    leaf.compute_bytes = 0;
    tests_lanes_ = false;
    num_accesses_ = 0;
    if (in_registers) {
      add_register(leaf, nest, output);
    } else {
      add_access(leaf, nest, number, output, nullptr);
    }
    if (role == Role::kThreadResult) add_register(leaf, nest, output);
    if (!leaf.is_init && role != Role::kThreadResult) {
      leaf.ops = spec.ops;
      add_ops(leaf.ops, spec.combine_ops);
      drop_conditions(leaf, nest, spec);
      leaf.compute_bytes = spec.float_bytes ? spec.float_bytes : spec.int_bytes;
      for (Int peer : spec.peers) {
        if (in_registers) {
          add_register(leaf, nest, static_cast<int>(peer));
        } else {
          add_access(leaf, nest, number, static_cast<int>(peer), nullptr);
        }
      }
      for (const Read& read : spec.reads) {
        add_access(leaf, nest, read.stage, read.output, read.indices.get(), read.layout);
      }
    }
    leaf.accesses.resize(num_accesses_);
    limits_.visit(leaf, nest, buffers_.size() > known, tests_lanes_);
    leaves_.push_back(&leaf);
  }

  // Take off the parts of conditions that always hold here, such as those of padding not reached.
  void drop_conditions(Leaf& leaf, const Nest& nest, const Spec& spec) {
    tested_.clear();
    for (const Choice& choice : spec.choices) {
      Int dropped = 0;
      for (const Condition& condition : choice.conditions) {
        const Tested& tested = find_tested(condition.index, nest);
        Int low = tested.low + condition.index.constant;
        Int high = tested.high + condition.index.constant;
        // Guards keep the axes within their extents.
        for (const Term& term : condition.index.terms) {
          if (term.kind != Term::kAxis) continue;
          Int excess = term.coefficient * nest.excess[static_cast<std::size_t>(term.number)];
          (excess > 0 ? high : low) -= excess;
        }
        bool always = low >= condition.low && high <= condition.high;
        dropped += always;
        if (always || open_.empty()) continue;
        tests_lanes_ = tests_lanes_ || moves_with(tested.loops, open_.back().position);
      }
      bool holds = dropped == choice.num_parts;
      leaf.ops[kCompare] -= dropped;
      leaf.ops[kBool] -= dropped - holds;
      leaf.ops[kSelect] -= holds;
    }
  }

  // What the terms of a condition's index are in this nest; tables test one index over and over.
  const Tested& find_tested(const Index& index, const Nest& nest) {
    for (const Tested& known : tested_) {
      if (same_terms(*known.index, index)) return known;
    }
    LoopIndex loops = in_loops(index, nest.axes, nest.loop_extents);
    auto [low, high] = loops.bounds(nest.loop_extents);
    tested_.push_back({&index, std::move(loops), low - index.constant, high - index.constant});
    return tested_.back();
  }

  int buffer_number(const BufferKey& key) {
    auto found = std::find(buffers_.begin(), buffers_.end(), key);
    if (found == buffers_.end()) found = buffers_.insert(found, key);
    return static_cast<int>(found - buffers_.begin());
  }

  Access& next_access(Leaf& leaf) {
    if (num_accesses_ == leaf.accesses.size()) leaf.accesses.emplace_back();
    return leaf.accesses[num_accesses_++];
  }

  // The variable in which a thread keeps its part of a reduction.
  void add_register(Leaf& leaf, const Nest& nest, int output) {
    Access& access = next_access(leaf);
    int inner = nest.depth + nest.num_common;
    access.element_bytes = nest.spec->output(static_cast<std::size_t>(output)).element_bytes;
    access.scope = kLocal;
    access.is_inside = !open_.empty() && open_.front().position < inner;
    access.shape.assign(1, 1);
    access.cover.assign(leaf.loops.size() + 1, 1);
    access.steps.assign(leaf.loops.size(), 0);
    access.share.assign(2, 1);
  }

  // An access to a result of stage `number`; without indices, to the element that is stored.
  void add_access(Leaf& leaf, const Nest& nest, int number, int output, const Indices* indices,
                  ReadLayout layout = kGiven) {
    Access& access = next_access(leaf);
    const Nest* producer = (*nests_)[static_cast<std::size_t>(number)];
    const Spec& buffer = producer ? *producer->spec
                                  : *schedule_->flattened().specs[static_cast<std::size_t>(number)];
    const Spec& result = buffer.output(static_cast<std::size_t>(output));
    access.element_bytes = result.element_bytes;
    bool allocated = producer && !result.is_returned;
    access.scope = allocated ? producer->scope : kGlobal;
    access.is_inside = false;
    if (allocated) {
      for (int at = 0; at < producer->depth; ++at) {
        const PathLoop& loop = producer->path[static_cast<std::size_t>(at)];
        access.is_inside = access.is_inside || loop.extent > 1;
      }
    }
    access.shape = allocated ? producer->region : buffer.shape;
    const std::vector<LayoutPart>* parts = nullptr;
    if (layout == kFree && rewrites_) {
      parts = &rewrite_layout(nest, *indices);
      access.shape.clear();
      for (const LayoutPart& part : *parts) access.shape.push_back(part.extent);
    }
    std::size_t dims = access.shape.size(), loops = leaf.loops.size();
    access.cover.resize(dims * (loops + 1));
    access.share.resize(dims * 2);
    access.steps.assign(loops, 0);
    unknown_.assign(loops, 0);
    Int neighbour = 1;
    for (std::size_t dim = dims; dim-- > 0;) {
      const LoopIndex* index = &nest.axes[dim];
      if (indices) {
        const Index& given = (*indices)[parts ? (*parts)[dim].dim : dim];
        if (!parts && given.is_axis()) {
          index = &nest.axes[static_cast<std::size_t>(given.terms[0].number)];
        } else {
          put_in_loops(given, nest.axes, nest.loop_extents, index_);
          if (parts) index_ = (*parts)[dim].of(index_, nest.loop_extents);
          index = &index_;
        }
      }
      Int reach = 1, curved = 0, shape = access.shape[dim];
      std::uint64_t curved_loops = index->curved_loops();
      access.cover[dim * (loops + 1) + loops] = 1;
      for (std::size_t loop = loops; loop-- > 0;) {
        auto at = static_cast<std::size_t>(open_[loop].position);
        reach += std::abs(index->coefficients[at]) * (nest.loop_extents[at] - 1);
        Int step = index->coefficients[at];
        if (curved_loops & LoopIndex::bit(at)) {
          curved = index->curved_span(at, nest.loop_extents);
          step = index->step_of(at);
          if (index->is_opaque_in(at)) unknown_[loop] = 1;
        }
        access.cover[dim * (loops + 1) + loop] = std::min(reach + curved, shape);
        access.steps[loop] += neighbour * step;
      }
      Int* share = &access.share[dim * 2];
      share[0] = share[1] = access.cover[dim * (loops + 1)];
      if (parallel_ < loops && moves_with(*index, open_[parallel_].position)) {
        LoopIndex folded;
        if (index->curved.size() > 1) {
          folded = index->folded();
          index = &folded;
        }
        for (std::size_t run = 0; run < 2; ++run) {
          share[run] = std::min(reach_of(*index, share_extents_[run]), shape);
        }
      }
      neighbour *= shape;
    }
    for (std::size_t loop = 0; loop < loops; ++loop) {
      access.steps[loop] = unknown_[loop] ? 0 : std::abs(access.steps[loop]);
    }
  }

  static bool moves_with(const LoopIndex& index, int position) {
    auto at = static_cast<std::size_t>(position);
    return index.coefficients[at] != 0 || (index.curved_loops() & LoopIndex::bit(at)) != 0;
  }

  // How far an index reaches while all open loops run as often as given.
  Int reach_of(const LoopIndex& index, const LoopInts& extents) const {
    Int reach = 1;
    for (const OpenLoop& open : open_) {
      auto at = static_cast<std::size_t>(open.position);
      reach += std::abs(index.coefficients[at]) * (extents[at] - 1);
    }
    return reach + index.curved_span(static_cast<std::size_t>(open_.front().position), extents);
  }

  // Give a constant input the layout in which it is read (GetNewLayout in compute_dag.cc): one
  // dimension per loop over one of its axes, in the order of the loops. Valid until the next call.
  const std::vector<LayoutPart>& rewrite_layout(const Nest& nest, const Indices& indices) {
    if (parts_nest_ == &nest && parts_indices_ == &indices) return parts_;
    parts_nest_ = &nest;
    parts_indices_ = &indices;
    parts_.clear();
    original_loops(nest, nest.stage->order, own_loops_);
    if (const Stage* target = nest.stage->attached_to) {
      auto end = std::find(target->order.begin(), target->order.end(), nest.stage->attached_at);
      original_loops(nest_of(*target), {target->order.begin(), end + 1}, outer_loops_);
      // The outer loops are taken to be over the axes of the stage's own first loops.
      for (std::size_t n = 0; n < std::min(outer_loops_.size(), own_loops_.size()); ++n) {
        add_part(indices, own_loops_[n].first, outer_loops_[n].second);
      }
    }
    for (const auto& [axis, extent] : own_loops_) add_part(indices, axis, extent);
    stride_.assign(indices.size(), 1);
    for (std::size_t n = parts_.size(); n-- > 0;) {
      Int& stride = stride_[parts_[n].dim];
      parts_[n].stride = stride;
      stride *= parts_[n].extent;
    }
    return parts_;
  }

  // Add the dimension that a loop over an axis makes, if a dimension of the input is that axis.
  void add_part(const Indices& indices, Int axis, Int extent) {
    for (std::size_t dim = 0; dim < indices.size(); ++dim) {
      const auto& terms = indices[dim].terms;
      if (terms.size() == 1 && terms[0].kind == Term::kAxis && terms[0].number == axis) {
        parts_.push_back({dim, extent, 1});
        return;
      }
    }
  }

  // The axis and extent of every loop, fused ones taken apart.
  static void original_loops(const Nest& nest, const std::vector<int>& order,
                             std::vector<std::pair<Int, Int>>& loops) {
    const Stage& stage = *nest.stage;
    loops.clear();
    for (int iterator : order) {
      auto fused = std::find_if(stage.relations.begin(), stage.relations.end(),
                                [iterator](const Relation& relation) {
                                  return !relation.is_split && relation.whole == iterator;
                                });
      if (fused == stage.relations.end()) {
        loops.emplace_back(axis_of(stage, iterator), nest.extents[static_cast<std::size_t>(iterator)]);
      } else {
        for (int part : fused->parts) {
          Int extent = nest.extents[static_cast<std::size_t>(part)];
          loops.emplace_back(axis_of(stage, part), fused->forgets_extents ? 1 : extent);
        }
      }
    }
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

  LayoutRewrite layout_;
  double cores_;
  LimitCheck limits_;
  bool rewrites_ = false;
  bool within_limits_ = false;
  Schedule* schedule_ = nullptr;
  Nests walk_;
  const std::vector<Nest*>* nests_ = nullptr;
  Pool<Leaf> pool_;
  std::vector<Leaf*> leaves_;
  std::size_t num_accesses_ = 0;
  bool tests_lanes_ = false;  // whether a condition of the leaf varies in its innermost loop
  Int num_nodes_ = 0;
  Int outermost_ = -1;
  Int unroll_limit_ = 0;
  std::vector<OpenLoop> open_;
  std::vector<char> has_attached_;  // [stage]
  std::vector<std::unique_ptr<Spec>> copies_;
  Pool<Stage> stages_;
  std::vector<BufferKey> buffers_;  // in order of the first store
  // What `rewrite_layout` made last, and for which read; and its scratch.
  std::vector<LayoutPart> parts_;
  const Nest* parts_nest_ = nullptr;
  const Indices* parts_indices_ = nullptr;
  std::vector<std::pair<Int, Int>> own_loops_, outer_loops_;
  std::vector<Int> stride_;
  LoopIndex index_;
  std::vector<Tested> tested_;  // of the leaf's conditions so far
  std::vector<char> unknown_;  // [loop]
  std::size_t parallel_ = 0;  // which of the open loops is shared out among cores
  std::vector<LoopInts> share_extents_;  // with two of its iterations, and with one core's
};

}  // namespace cdmpp
