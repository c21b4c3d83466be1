// Which limits of a GPU a program exceeds, as TVM's VerifyGPUCode would find after lowering it.
//
// TVM checks every kernel: the code below the outermost loop that is bound to a GPU index. It sees
// memory as StorageRewrite leaves it, and virtual threads as InjectVirtualThread does.
#pragma once

#include "features.h"
#include "nests.h"

namespace cdmpp {

// In the order of `tvm_cdmpp.extract.limits.LIMITS`.
enum Limit : int { kThreads, kThreadExtents, kSharedBytes, kLocalBytes, kVthreads, kVectorBytes };

// The first limit that a program exceeds.
struct Excess {
  Int limit = -1;  // none
  Int got = 0;
  Int allowed = 0;
};

// Follows the leaves of one program, in order. A limit that is not positive is none.
class LimitCheck {
 public:
  explicit LimitCheck(const Hardware& hardware) : hardware_(hardware) {}

  void start() {
    excess_ = {};
    kernel_ = nullptr;
  }

  // `allocates`: whether it is the first leaf to store to its buffer; `tests_lanes`: whether a
  // condition of it varies in its innermost loop, which TVM then does not vectorize.
  void visit(const Leaf& leaf, const Nest& nest, bool allocates, bool tests_lanes) {
    if (hardware_.threads <= 0) return;  // not a GPU
    auto outermost = std::find_if(nest.path.begin(), nest.path.end(),
                                  [](const PathLoop& loop) { return is_bound(loop.kind); });
    if (outermost == nest.path.end()) return;
    if (!kernel_ || kernel_ != outermost->stage || iterator_ != outermost->iterator) {
      kernel_ = outermost->stage;
      iterator_ = outermost->iterator;
      shared_bytes_ = local_bytes_ = 0;
      std::fill(std::begin(extents_), std::end(extents_), 0);
    }
    double copies = 1;  // one for every virtual thread
    for (auto loop = outermost; loop != nest.path.end(); ++loop) {
      if (loop->kind == kVthread) copies *= static_cast<double>(loop->extent);
      if (!is_thread(loop->kind)) continue;
      Int& extent = extents_[loop->kind];
      if (extent == 0) extent = loop->extent;
      if (extent != loop->extent) exceeded(kThreadExtents, loop->extent, extent);
    }
    double threads = 1;
    for (Int extent : extents_) threads *= static_cast<double>(std::max(extent, Int{1}));
    check(kThreads, threads, hardware_.threads);
    if (allocates) allocate(leaf.accesses.front(), copies);
    // Fewer are unrolled, which TVM does not count.
    if (copies >= kLoopedVthreads) check(kVthreads, copies, hardware_.vthreads);
    if (!tests_lanes) check_vector(leaf, nest);
  }

  const Excess& excess() const { return excess_; }

 private:
  static constexpr double kLoopedVthreads = 16;

  void allocate(const Access& store, double copies) {
    auto bytes = static_cast<double>(store.element_bytes);
    for (Int extent : store.shape) bytes *= static_cast<double>(extent);
    if (store.scope == kShared) shared_bytes_ += bytes;
    if (store.scope == kLocal) local_bytes_ += bytes * copies;
    check(kSharedBytes, shared_bytes_, hardware_.shared_bytes);
    check(kLocalBytes, local_bytes_, hardware_.local_bytes);
  }

  void check_vector(const Leaf& leaf, const Nest& nest) {
    if (leaf.loops.empty() || leaf.loops.back().kind != kVectorized) return;
    if (guards_lanes(nest, leaf.loops.back().extent)) return;
    Int widest = 0;
    for (const Access& access : leaf.accesses) {
      if (access.steps.back() != 0) widest = std::max(widest, access.element_bytes);
    }
    check(kVectorBytes, static_cast<double>(widest) * static_cast<double>(leaf.loops.back().extent),
          hardware_.vector_bytes);
  }

  // Whether a guard of loops that do not divide tells lanes apart.
  static bool guards_lanes(const Nest& nest, Int lanes) {
    std::size_t inner = nest.path.size() - 1;
    while (inner > 0 && nest.path[inner].extent == 1) --inner;
    for (std::size_t axis = 0; axis < nest.num_axes(); ++axis) {
      if (nest.excess[axis] == 0) continue;
      const LoopIndex& index = nest.axes[axis];
      Int step = index.coefficients[inner];
      if (step != 0 && nest.extents[axis] % (step * lanes) != 0) return true;
      for (const Term& term : index.curved) {
        if (divides_lanes(term, static_cast<Int>(inner), lanes)) return true;
      }
    }
    return false;
  }

  // Whether a part of a fused loop varies between lanes, and the guard of the fused loop does not
  // bound it: TVM draws conclusions about one loop from that, not about two.
  static bool divides_lanes(const Term& term, Int inner, Int lanes) {
    if (term.kind == Term::kAxis) return term.number == inner;
    Int step = 0, num_others = 0;
    for (const Term& part : term.inner->terms) {
      if (part.kind != Term::kAxis) return true;
      (part.number == inner ? step : num_others) += part.number == inner ? part.coefficient : 1;
    }
    if (step == 0 || num_others < 2) return false;
    auto apart = [whole = step * lanes](Int value) { return value % whole != 0; };
    return apart(term.number) ||
           std::any_of(term.inner->terms.begin(), term.inner->terms.end(), [&](const Term& part) {
             return part.number != inner && apart(part.coefficient);
           });
  }

  void check(Limit limit, double got, double allowed) {
    if (allowed > 0 && got > allowed) exceeded(limit, got, allowed);
  }

  template <class Number>
  void exceeded(Limit limit, Number got, Number allowed) {
    if (excess_.limit < 0) excess_ = {limit, static_cast<Int>(got), static_cast<Int>(allowed)};
  }

  Hardware hardware_;
  Excess excess_;
  const Stage* kernel_ = nullptr;  // where the outermost bound loop is, and which one
  int iterator_ = 0;
  Int extents_[kNumLoopKinds] = {};  // of the threads, by kind; 0: none so far
  double shared_bytes_ = 0, local_bytes_ = 0;
};

}  // namespace cdmpp
