// Loop nests of the computed stages of one candidate: extents, and how far axes move.
//
// The walk goes from consumers to producers. For every stage it finds the extent of each loop and,
// per axis and level, the *cover*: how many values the axis takes while the loops from that level
// inward run (level 0: all loops on the stage's path, last level: none). A stage computed at a loop
// of its consumer must provide what the consumer reads below that loop, so the consumer's cover at
// that level, pushed through its read indices, is the region of the producer, clipped to the shape;
// GPU threads run at every level where the producer's memory is shared by them. These are the rules
// of TVM's bound inference (te/schedule/bound.cc, message_passing.cc, te/operation/compute_op.cc).
#pragma once

#include "loop_index.h"
#include "schedule.h"

namespace cdmpp {

// One loop around a stage: iterator `iterator` of `stage`.
struct PathLoop {
  const Stage* stage;
  int iterator;
  Int extent;
  int kind;
  bool is_reduce;
  // Position in the path where its index really advances: its own; that of an outer loop over the
  // same GPU thread; kNowhere where TVM replaces the thread's index by zero.
  int advances_at;
};
constexpr int kNowhere = -1;
constexpr double kMaxExecutions = 1e18;

// Which loops run at every level when memory of this scope must be filled.
inline bool runs_always(int scope, int kind) {
  return is_bound(kind) && (scope == kGlobal || (scope == kShared && !is_block(kind)));
}

// The nest of one computed stage. Arrays over axes are laid out [level or loop][axis].
struct Nest {
  Stage* stage;
  const Spec* spec;
  int scope;               // with what TVM infers where none is given
  int depth;               // loops of other stages around this one
  int num_common;          // own loops outside of the first that is run by the update alone
  bool crosses_threads;    // a reduction over GPU threads
  std::vector<PathLoop> path;
  std::vector<Int> extents;      // [iterator]
  std::vector<Int> region;       // [spatial axis], what one execution of the stage computes
  LoopInts loop_extents;         // [loop]; 1 for one that does not advance by itself
  std::vector<LoopIndex> axes;   // [axis], in terms of the loops on the path
  std::vector<Int> excess;       // [axis], how far loops that do not divide go beyond its extent
  // By the scope whose threads run always: cover of the spatial axes at the inherited levels and
  // below them, [level][axis]; of all axes at all levels, [level][axis]; which levels are known.
  std::vector<Int> needed[3];
  std::vector<Int> cover[3];
  std::uint64_t known[3];

  std::size_t num_axes() const { return spec->extents.size(); }
};

class Nests {
 public:
  // Nests of all computed stages, by stage number; null for inputs and inlined stages.
  const std::vector<Nest*>& of(Schedule& schedule) {
    flattened_ = &schedule.flattened();
    const auto& stages = schedule.stages();
    nests_.assign(stages.size(), nullptr);
    pool_.reset();
    for (std::size_t number = stages.size(); number-- > 0;) {
      const Spec& spec = *flattened_->specs[number];
      if (schedule.node().inlined[number] || spec.is_placeholder) continue;
      nests_[number] = make(*stages[number], spec);
    }
    return nests_;
  }

  // Add the nest of a stage at the root that is not among the task's.
  Nest& append(Stage& stage, const Spec& spec) {
    stage.number = static_cast<int>(nests_.size());
    nests_.push_back(make(stage, spec));
    return *nests_.back();
  }

 private:
  Nest* make(Stage& stage, const Spec& spec) {
    Nest* nest = pool_.take();
    nest->stage = &stage;
    nest->spec = &spec;
    for (int scope = 0; scope < 3; ++scope) {
      nest->known[scope] = 0;
      nest->needed[scope].clear();
    }
    inherit(*nest);
    find_region(*nest);
    find_extents(*nest);
    append_own_loops(*nest);
    check_executions(*nest);
    find_axes(*nest);
    return nest;
  }

  // Covers of all axes at one level while the threads of `scope` run always.
  const Int* cover(Nest& nest, int scope, std::size_t level) {
    std::size_t axes = nest.num_axes(), dims = nest.region.size();
    if (nest.known[scope] == 0) nest.cover[scope].resize((nest.path.size() + 1) * axes);
    Int* result = nest.cover[scope].data() + level * axes;
    std::uint64_t bit = std::uint64_t{1} << level;
    if (nest.known[scope] & bit) return result;
    nest.known[scope] |= bit;
    own_cover(nest, scope, static_cast<int>(level), result);
    // What moves the region adds to that.
    const std::vector<Int>& moved = needed(nest, scope);
    std::size_t row = std::min(level, static_cast<std::size_t>(nest.depth)) * dims;
    for (std::size_t dim = 0; dim < dims; ++dim) {
      result[dim] += std::max(moved[row + dim] - nest.region[dim], Int{0});
    }
    return result;
  }

  void inherit(Nest& nest) {
    nest.path.clear();
    if (const Stage* target = nest.stage->attached_to) {
      const Nest* outer = nests_[static_cast<std::size_t>(target->number)];
      std::size_t depth = 0;
      if (outer) {
        const auto& path = outer->path;
        depth = static_cast<std::size_t>(
            std::find_if(path.begin(), path.end(),
                         [&](const PathLoop& loop) {
                           return loop.stage == target &&
                                  loop.iterator == nest.stage->attached_at;
                         }) - path.begin());
      }
      if (!outer || depth == outer->path.size()) {
        throw RecordError{"The transform steps do not fit the task: stage " +
                          std::to_string(nest.stage->number) +
                          " is attached to a loop that does not exist. The record probably belongs "
                          "to another workload."};
      }
      nest.path.assign(outer->path.begin(), outer->path.begin() + static_cast<Int>(depth) + 1);
    }
    nest.depth = static_cast<int>(nest.path.size());
    nest.scope = nest.spec->scope;
    if (nest.scope == kUnset) {
      nest.scope = kGlobal;
      for (const PathLoop& loop : nest.path) {
        if (is_bound(loop.kind)) {
          nest.scope = std::max<int>(nest.scope, is_block(loop.kind) ? kShared : kLocal);
        }
      }
    }
  }

  // Cover of the spatial axes at the levels of the inherited loops and below them, while the
  // threads of `running` run always; [level][axis].
  const std::vector<Int>& needed(Nest& nest, int running) {
    const Spec& spec = *nest.spec;
    std::size_t dims = spec.shape.size();
    std::size_t levels = static_cast<std::size_t>(nest.depth) + 1;
    std::vector<Int>& lengths = nest.needed[running];
    if (!lengths.empty() || dims == 0) return lengths;
    lengths.assign(levels * dims, 1);
    const auto& consumers = consumers_of(nest);
    bool whole = spec.is_output || consumers.empty();
    for (std::size_t n = 0; n < consumers.size() && !whole;) {
      Nest& consumer = *nests_[static_cast<std::size_t>(consumers[n].stage)];
      std::size_t end = n;
      while (end < consumers.size() && consumers[end].stage == consumers[n].stage) ++end;
      whole = !shares_path(nest, consumer);
      for (std::size_t level = 0; level < levels && !whole; ++level) {
        const Int* covers = cover(consumer, std::min(running, nest.scope), level);
        const Int* widest = cover(consumer, std::min(running, nest.scope), 0);
        for (std::size_t dim = 0; dim < dims; ++dim) {
          Int& longest = lengths[level * dims + dim];
          longest = std::max(longest, union_span(consumers, n, end, dim, covers, widest));
        }
      }
      n = end;
    }
    for (std::size_t dim = 0; dim < dims; ++dim) {
      // TVM clips an interval only where it provably covers the dimension, that is where no loop
      // outside of it moves it; a moving interval keeps its length even at the border.
      Int longest = lengths[dim];
      for (std::size_t level = 0; level < levels; ++level) {
        Int& length = lengths[level * dims + dim];
        if (whole) {
          length = spec.shape[dim];
        } else if (length >= longest || length >= kUnbounded) {
          length = std::min(length, spec.shape[dim]);
        }
      }
    }
    return lengths;
  }

  const std::vector<Consumer>& consumers_of(const Nest& nest) const {
    static const std::vector<Consumer> none;
    auto number = static_cast<std::size_t>(nest.stage->number);
    return number < flattened_->consumers.size() ? flattened_->consumers[number] : none;
  }

  static bool shares_path(const Nest& nest, const Nest& consumer) {
    auto depth = static_cast<std::size_t>(nest.depth);
    if (consumer.path.size() < depth) return false;
    for (std::size_t n = depth; n-- > 0;) {
      if (consumer.path[n].stage != nest.path[n].stage ||
          consumer.path[n].iterator != nest.path[n].iterator) {
        return false;
      }
    }
    return true;
  }

  // Span of the union of several reads of one dimension. Reads that start apart widen the interval:
  // by a constant, or by what the loops further out, which run in `widest`, move one and not the
  // other.
  static Int union_span(const std::vector<Consumer>& reads, std::size_t first, std::size_t end,
                        std::size_t dim, const Int* covers, const Int* widest) {
    auto cover = [covers](Int axis) { return covers[axis]; };
    const Index& one = (*reads[first].read->indices)[dim];
    Int longest = span(one, cover), apart = 0;
    Int smallest = one.constant, largest = one.constant;
    for (std::size_t n = first + 1; n < end; ++n) {
      const Index& other = (*reads[n].read->indices)[dim];
      longest = std::max(longest, span(other, cover));
      smallest = std::min(smallest, other.constant);
      largest = std::max(largest, other.constant);
      if (same_terms(one, other)) continue;
      Int ahead = 0, behind = 0;
      for (const Term& term : add(other, scaled(one, -1)).terms) {
        if (term.kind != Term::kAxis) continue;
        Int moves = term.coefficient * (widest[term.number] - covers[term.number]);
        (moves > 0 ? ahead : behind) += std::abs(moves);
      }
      apart = std::max({apart, ahead, behind});
    }
    return longest < kUnbounded ? longest + std::max(largest - smallest, apart) : longest;
  }

  void find_region(Nest& nest) {
    std::size_t dims = nest.spec->shape.size();
    const std::vector<Int>& levels = needed(nest, kLocal);
    nest.region.assign(levels.end() - static_cast<Int>(dims), levels.end());
    for (std::size_t dim = 0; dim < dims; ++dim) {
      Int &extent = nest.region[dim], shape = nest.spec->shape[dim];
      if (extent <= shape) continue;
      // A moving interval that always covers the dimension is clipped as well.
      LoopIndex start = region_start(nest, dim);
      const Nest& consumer = *nests_[static_cast<std::size_t>(consumers_of(nest).front().stage)];
      if (start.coefficients.empty()) continue;
      auto [low, high] = start.bounds(consumer.loop_extents);
      if (high <= 0 && low + extent >= shape) extent = shape;
    }
  }

  // Refuse more executions than the numbers here can count.
  static void check_executions(const Nest& nest) {
    double executions = 1;
    for (const PathLoop& loop : nest.path) executions *= static_cast<double>(loop.extent);
    if (executions > kMaxExecutions) throw std::out_of_range("loops that would never end");
  }

  // Extents of the iterators, from the axes down (PassDownDomain).
  void find_extents(Nest& nest) {
    const Stage& stage = *nest.stage;
    nest.extents.assign(stage.is_reduce.size(), 1);
    std::copy(nest.spec->extents.begin(), nest.spec->extents.end(), nest.extents.begin());
    // The axes of a stage are its dimensions, with the region in place of the whole shape.
    std::copy(nest.region.begin(), nest.region.end(), nest.extents.begin());
    std::size_t axes = nest.num_axes();
    if (std::any_of(nest.extents.begin(), nest.extents.begin() + static_cast<Int>(axes),
                    [](Int extent) { return extent < 1; })) {
      throw RecordError{"Stage " + std::to_string(stage.number) +
                        " has an axis of size 0, so it computes nothing; expected sizes of 1 and "
                        "more. Leave the task out of the search."};
    }
    find_bound(stage);
    auto extent = [&nest](int iterator) -> Int& {
      return nest.extents[static_cast<std::size_t>(iterator)];
    };
    for (const Relation& relation : stage.relations) {
      if (!relation.is_split) {
        Int fused = 1;
        for (int part : relation.parts) fused = extent_product(fused, extent(part));
        extent(relation.whole) = fused;
        continue;
      }
      Int rest = extent(relation.whole), all = 1;
      std::size_t count = relation.factors.size();
      for (std::size_t n = 0; n < count; ++n) {
        std::size_t at = relation.inner_to_outer ? count - 1 - n : n;
        int part = relation.parts[relation.inner_to_outer ? at + 1 : at];
        Int factor = relation.factors[at];
        extent(part) = bound_[static_cast<std::size_t>(part)] ? factor : std::min(factor, rest);
        all = extent_product(all, extent(part));
        rest = ceil_div(rest, factor);
      }
      extent_product(all, rest);
      extent(relation.inner_to_outer ? relation.parts.front() : relation.parts.back()) = rest;
    }
  }

  // Mark the iterators that lead to a loop bound to a GPU index; TVM keeps their factors.
  void find_bound(const Stage& stage) {
    bound_.assign(stage.is_reduce.size(), 0);
    for (int iterator : stage.order) {
      auto at = static_cast<std::size_t>(iterator);
      bound_[at] = is_bound(stage.kind[at]);
    }
    for (auto relation = stage.relations.rbegin(); relation != stage.relations.rend(); ++relation) {
      auto& whole = bound_[static_cast<std::size_t>(relation->whole)];
      for (int part : relation->parts) {
        auto& mark = bound_[static_cast<std::size_t>(part)];
        if (relation->is_split) {
          whole = whole || mark;
        } else {
          mark = mark || whole;
        }
      }
    }
  }

  void append_own_loops(Nest& nest) {
    const Stage& stage = *nest.stage;
    auto reduces = [&stage](int i) { return stage.is_reduce[static_cast<std::size_t>(i)] != 0; };
    auto bound = [&stage](int i) { return is_bound(stage.kind[static_cast<std::size_t>(i)]); };
    nest.crosses_threads = std::any_of(stage.order.begin(), stage.order.end(),
                                       [&](int i) { return reduces(i) && bound(i); });
    if (nest.crosses_threads) {
      // Each thread reduces its part in a loop inside of all others.
      for (int i : stage.order) {
        if (!reduces(i) || bound(i)) append_loop(nest, i);
      }
      nest.num_common = static_cast<int>(nest.path.size()) - nest.depth;
      for (int i : stage.order) {
        if (reduces(i) && !bound(i)) append_loop(nest, i);
      }
    } else {
      auto first = std::find_if(stage.order.begin(), stage.order.end(), reduces);
      nest.num_common = static_cast<int>(first - stage.order.begin());
      for (int i : stage.order) append_loop(nest, i);
    }
  }

  static void append_loop(Nest& nest, int iterator) {
    auto at = static_cast<std::size_t>(iterator);
    const Stage& stage = *nest.stage;
    int position = static_cast<int>(nest.path.size());
    PathLoop loop{&stage,         iterator, nest.extents[at], stage.kind[at],
                  stage.is_reduce[at] != 0, position};
    if (loop.kind > kVthread) {
      for (int outer = position; outer-- > 0;) {
        const PathLoop& other = nest.path[static_cast<std::size_t>(outer)];
        if (other.kind != loop.kind || other.advances_at != outer || other.extent == 1) continue;
        if (other.extent == loop.extent) loop.advances_at = outer;
        break;
      }
      bool own_memory = nest.spec->scope == kLocal || (nest.spec->scope == kShared &&
                                                       is_block(loop.kind));
      if (own_memory) loop.advances_at = kNowhere;
    }
    nest.path.push_back(loop);
  }

  // Values that the axes take while the own loops from `level` inward run, from the loops up
  // (PassUpDomain).
  void own_cover(const Nest& nest, int scope, int level, Int* result) {
    const Stage& stage = *nest.stage;
    iterator_cover_.assign(stage.is_reduce.size(), 1);
    auto cover = [this](int iterator) -> Int& {
      return iterator_cover_[static_cast<std::size_t>(iterator)];
    };
    auto extent = [&nest](int iterator) {
      return nest.extents[static_cast<std::size_t>(iterator)];
    };
    for (auto at = static_cast<std::size_t>(nest.depth); at < nest.path.size(); ++at) {
      const PathLoop& loop = nest.path[at];
      bool runs = loop.advances_at >= level || runs_always(scope, loop.kind);
      cover(loop.iterator) = runs ? loop.extent : 1;
    }
    for (auto at = stage.relations.rbegin(); at != stage.relations.rend(); ++at) {
      const Relation& relation = *at;
      if (relation.is_split) {
        bool all = true;
        Int length = 1;
        for (std::size_t n = 0; n < relation.parts.size(); ++n) {
          int part = relation.parts[n];
          all = all && cover(part) == extent(part);
          length = (length - 1) * extent(part) + cover(part);
        }
        // Exact where every part runs through, else the plain sum, which may overshoot.
        cover(relation.whole) = all ? extent(relation.whole) : length;
        continue;
      }
      Int block = cover(relation.whole);
      for (std::size_t n = relation.parts.size(); n-- > 0;) {
        int part = relation.parts[n];
        Int row = extent(part);
        cover(part) = row % block == 0 ? block : row;
        block = rows_met(block, row);
      }
    }
    for (std::size_t axis = 0; axis < nest.num_axes(); ++axis) result[axis] = iterator_cover_[axis];
  }

  // The axes in terms of loops: where the region starts, plus what the own loops add.
  void find_axes(Nest& nest) {
    std::size_t loops = nest.path.size();
    nest.loop_extents.assign(loops, 1);
    for (std::size_t at = 0; at < loops; ++at) {
      const PathLoop& loop = nest.path[at];
      if (loop.advances_at == static_cast<int>(at)) nest.loop_extents[at] = loop.extent;
    }
    find_iterators(nest);
    nest.axes.resize(nest.num_axes());
    nest.excess.resize(nest.num_axes());
    for (std::size_t axis = 0; axis < nest.num_axes(); ++axis) {
      std::swap(nest.axes[axis], iterators_[axis]);
      Int last = nest.axes[axis].bounds(nest.loop_extents).second;
      nest.excess[axis] = std::max(last - nest.extents[axis] + 1, Int{0});
    }
    for (std::size_t dim = 0; dim < nest.region.size(); ++dim) {
      if (nest.region[dim] >= nest.spec->shape[dim]) continue;
      LoopIndex start = region_start(nest, dim);
      start.coefficients.resize(loops);
      nest.axes[dim].add(start, 1);
    }
  }

  // Where the region starts in one dimension, in terms of the loops of its consumer.
  LoopIndex region_start(const Nest& nest, std::size_t dim) const {
    const auto& consumers = consumers_of(nest);
    if (nest.depth == 0 || consumers.empty()) return LoopIndex();
    const Nest& consumer = *nests_[static_cast<std::size_t>(consumers.front().stage)];
    if (!shares_path(nest, consumer)) return LoopIndex();
    // Of several reads of one consumer, the one that starts first.
    const Index* first = nullptr;
    for (const Consumer& read : consumers) {
      if (read.stage != consumers.front().stage) break;
      const Index& index = (*read.read->indices)[dim];
      if (!first || index.constant < first->constant) first = &index;
    }
    return in_loops(*first, consumer.axes, consumer.loop_extents).restricted([&](std::size_t loop) {
      return loop < static_cast<std::size_t>(nest.depth) &&
             !runs_always(nest.scope, nest.path[loop].kind);
    });
  }

  // The own iterators in terms of loops (PassUpIndex), into `iterators_`.
  void find_iterators(const Nest& nest) {
    const Stage& stage = *nest.stage;
    std::size_t loops = nest.path.size();
    if (iterators_.size() < stage.is_reduce.size()) iterators_.resize(stage.is_reduce.size());
    for (std::size_t n = 0; n < stage.is_reduce.size(); ++n) iterators_[n].clear(loops);
    auto index = [this](int iterator) -> LoopIndex& {
      return iterators_[static_cast<std::size_t>(iterator)];
    };
    auto extent = [&nest](int iterator) {
      return nest.extents[static_cast<std::size_t>(iterator)];
    };
    for (auto at = static_cast<std::size_t>(nest.depth); at < loops; ++at) {
      const PathLoop& loop = nest.path[at];
      if (loop.advances_at == kNowhere || loop.extent == 1) continue;
      index(loop.iterator).coefficients[static_cast<std::size_t>(loop.advances_at)] = 1;
    }
    for (auto at = stage.relations.rbegin(); at != stage.relations.rend(); ++at) {
      const Relation& relation = *at;
      if (relation.is_split) {
        Int stride = 1;
        for (std::size_t n = relation.parts.size(); n-- > 0;) {
          index(relation.whole).add(index(relation.parts[n]), stride);
          stride *= extent(relation.parts[n]);
        }
      } else {
        take_apart(nest, relation);
      }
    }
  }

  // The parts of a fused iterator, inner to outer: remainders by the extents, of what the quotient
  // by the extents so far has left. As TVM simplifies them, a quotient of a quotient is one of the
  // first `base`, unless multiples left it, and (base / d) % e is (base % (d * e)) / d.
  void take_apart(const Nest& nest, const Relation& relation) {
    LoopIndex base = iterators_[static_cast<std::size_t>(relation.whole)];
    Int divisor = 1, left = nest.extents[static_cast<std::size_t>(relation.whole)];
    int num_inside = 0;
    bool guarded = is_guarded(nest, relation.whole);
    for (std::size_t n = relation.parts.size(); n-- > 0;) {
      auto part = static_cast<std::size_t>(relation.parts[n]);
      Int extent = nest.extents[part];
      if (extent == 1 && n > 0) continue;
      left /= extent;
      LoopIndex& index = iterators_[part];
      index = base;
      if (n > 0) {
        // A guard `whole < total` around the loops makes the outermost modulo superfluous.
        Divider outer(divisor * extent, nest.loop_extents, num_inside < 2);
        index = left == 1 && guarded ? outer.without_multiples(base) : outer.remainder(base);
      }
      index = Divider(divisor, nest.loop_extents).quotient(index);
      if (extent == 1 && guarded) index.curved.clear();  // kept at zero by the guard
      if (n == 0) break;
      divisor *= extent;
      ++num_inside;
      LoopIndex rest = Divider(divisor, nest.loop_extents).quotient(base);
      if (!rest.is_quotient()) {
        base = std::move(rest);
        divisor = 1;
        num_inside = 0;
      }
    }
  }

  // Whether TVM guards an iterator itself, as its split does not divide it. What is wrong with
  // splits of its parts is guarded there, which says the same if the part is all of it.
  static bool is_guarded(const Nest& nest, int iterator) {
    auto extent = [&nest](int i) { return nest.extents[static_cast<std::size_t>(i)]; };
    for (const Relation& relation : nest.stage->relations) {
      if (!relation.is_split || relation.whole != iterator) continue;
      Int product = 1;
      for (int part : relation.parts) product *= extent(part);
      if (product > extent(iterator)) return true;
      if (extent(relation.parts.front()) < product) return false;
      iterator = relation.parts.front();
    }
    return false;
  }

  const Flattened* flattened_ = nullptr;
  std::vector<Nest*> nests_;
  Pool<Nest> pool_;
  std::vector<Int> iterator_cover_;
  std::vector<LoopIndex> iterators_;
  std::vector<char> bound_;
};

}  // namespace cdmpp
