// An index in terms of the loops around a statement, as it stands in the lowered program.
//
// Mostly it is affine, with one coefficient per loop; fused loops that are taken apart again add
// divisions and modulos. These are simplified as TVM does (arith/rewrite_simplify.cc), no more and no
// less, because how far an index is taken to reach depends on the form it has.
#pragma once

#include <optional>
#include <utility>

#include "index.h"
#include "small.h"

namespace cdmpp {

constexpr std::size_t kMaxLoops = 63;
using LoopInts = Small<Int, kMaxLoops>;  // one per loop around a statement

struct LoopIndex {
  LoopInts coefficients;          // [loop]
  std::vector<Term> curved;       // the atoms that are not affine; their axes are loops
  Int constant = 0;

  explicit LoopIndex(std::size_t loops = 0) : coefficients(loops) {}

  void clear(std::size_t loops) {
    coefficients.assign(loops, 0);
    curved.clear();
    constant = 0;
  }

  void add(const LoopIndex& other, Int factor) {
    for (std::size_t loop = 0; loop < other.coefficients.size(); ++loop) {
      coefficients[loop] += factor * other.coefficients[loop];
    }
    for (const Term& term : other.curved) add(term, factor);
    constant += factor * other.constant;
  }

  void add(const Index& index, Int factor) {
    for (const Term& term : index.terms) {
      if (term.kind == Term::kAxis) {
        coefficients[static_cast<std::size_t>(term.number)] += factor * term.coefficient;
      } else {
        add(term, factor);
      }
    }
    constant += factor * index.constant;
  }

  void add(Term term, Int factor) {
    term.coefficient *= factor;
    for (auto known = curved.begin(); known != curved.end(); ++known) {
      if (compare(*known, term) != 0) continue;
      known->coefficient += term.coefficient;
      if (known->coefficient == 0) curved.erase(known);
      return;
    }
    if (term.coefficient != 0) curved.push_back(std::move(term));
  }

  // Keep only the loops that `moves` accepts; the others stand at their first iteration.
  template <class Moves>
  LoopIndex restricted(const Moves& moves) const {
    LoopIndex result(coefficients.size());
    result.constant = constant;
    std::uint64_t standing = curved_loops();
    for (std::size_t loop = 0; loop < coefficients.size(); ++loop) {
      if (!moves(loop)) continue;
      result.coefficients[loop] = coefficients[loop];
      standing &= ~bit(loop);
    }
    if (standing == 0) {
      result.curved = curved;
      return result;
    }
    std::vector<Index> axes;
    for (std::size_t loop = 0; loop < coefficients.size(); ++loop) {
      axes.push_back(standing & bit(loop) ? Index{} : axis_index(static_cast<Int>(loop)));
    }
    for (const Term& term : curved) {
      Index index = replaced({{term}, 0}, axes);
      for (const Term& kept : index.terms) {
        if (kept.kind == Term::kAxis) {
          result.coefficients[static_cast<std::size_t>(kept.number)] += kept.coefficient;
        } else {
          result.add(kept, 1);
        }
      }
      result.constant += index.constant;
    }
    return result;
  }

  // Which loops the atoms that are not affine depend on, one bit each.
  std::uint64_t curved_loops() const { return loops_in(curved); }

  static std::uint64_t bit(std::size_t loop) { return std::uint64_t{1} << loop; }

  // The same with quotients and remainders of one number put together, as TVM does it. While all of
  // a loop runs they reach as far either way.
  LoopIndex folded() const {
    LoopIndex result = *this;
    while (result.fold_one()) {
    }
    return result;
  }

  // How far the atoms that are not affine reach while the loops from `level` inward run.
  Int curved_span(std::size_t level, const LoopInts& extents) const {
    if (curved.empty()) return 0;
    auto [low, high] = cdmpp::bounds(curved, 0, [&](Int loop) {
      auto at = static_cast<std::size_t>(loop);
      return at >= level ? extents[at] - 1 : Int{0};
    });
    return high - low;
  }

  // How far it moves from the first to the second iteration of a loop.
  Int step_of(std::size_t loop) const {
    if (curved.empty()) return coefficients[loop];
    return coefficients[loop] + step(curved, constant, [loop](Int other) {
             return Int{static_cast<std::size_t>(other) == loop};
           });
  }

  // The smallest and the largest value over all loops.
  std::pair<Int, Int> bounds(const LoopInts& extents) const {
    Int low = constant, high = constant;
    for (std::size_t loop = 0; loop < coefficients.size(); ++loop) {
      (coefficients[loop] > 0 ? high : low) += coefficients[loop] * (extents[loop] - 1);
    }
    if (curved.empty()) return {low, high};
    auto [first, last] = cdmpp::bounds(curved, 0, [&extents](Int loop) {
      return extents[static_cast<std::size_t>(loop)] - 1;
    });
    return {low + first, high + last};
  }

  // Whether its step over a loop is not known, as that of an index read from memory.
  bool is_opaque_in(std::size_t loop) const {
    return std::any_of(curved.begin(), curved.end(),
                       [loop](const Term& term) { return moves_unknown(term, loop); });
  }

  // Whether it is a single floor division.
  bool is_quotient() const {
    return num_terms() == 1 && constant == 0 && !curved.empty() &&
           curved[0].kind == Term::kDiv && curved[0].coefficient == 1;
  }

  std::size_t num_terms() const {
    auto zeros = std::count(coefficients.begin(), coefficients.end(), 0);
    return coefficients.size() - static_cast<std::size_t>(zeros) + curved.size();
  }

  Index as_index() const {
    Index index{{}, constant};
    index.terms.reserve(num_terms());
    for (std::size_t loop = 0; loop < coefficients.size(); ++loop) {
      if (coefficients[loop] == 0) continue;
      index.terms.push_back({Term::kAxis, static_cast<Int>(loop), nullptr, coefficients[loop]});
    }
    return curved.empty() ? index : cdmpp::add(index, sorted(curved));
  }

 private:
  // Put one quotient and its remainder together; false if there are none.
  bool fold_one() {
    for (const Term& rest : curved) {
      if (rest.kind != Term::kMod) continue;
      for (const Term& upper : curved) {
        if (upper.coefficient != rest.coefficient * rest.number) continue;
        auto whole = joined(upper, rest);
        if (!whole) continue;
        Int factor = rest.coefficient;
        Term first = upper, second = rest;  // copies, as these go away
        add(std::move(first), -1);
        add(std::move(second), -1);
        add(*whole, factor);
        return true;
      }
    }
    return false;
  }

  // What `upper * d + x % d` is as one atom, or nothing: x for x / d, x % (d * e) for x / d % e, and
  // x % n for (x % n) / d.
  static std::optional<Index> joined(const Term& upper, const Term& rest) {
    Int divisor = rest.number;
    const Index& x = *rest.inner;
    if (upper.kind == Term::kMod && compare(*upper.inner, quotient(x, divisor)) == 0) {
      return Index{{{Term::kMod, upper.number * divisor, rest.inner, 1}}, 0};
    }
    if (upper.kind != Term::kDiv) return std::nullopt;
    if (compare(Index{{{upper.kind, upper.number, upper.inner, 1}}, 0}, quotient(x, divisor)) == 0) {
      return x;
    }
    const auto& divided = upper.inner->terms;
    bool of_rest = divided.size() == 1 && upper.inner->constant == 0 &&
                   divided[0].kind == Term::kMod && divided[0].coefficient == 1 &&
                   divided[0].number % divisor == 0 && compare(*divided[0].inner, x) == 0;
    if (of_rest && upper.number == divisor) return *upper.inner;
    return std::nullopt;
  }

  // `index // divisor`, a quotient of a quotient as one.
  static Index quotient(const Index& index, Int divisor) {
    const auto& terms = index.terms;
    if (terms.size() == 1 && index.constant == 0 && terms[0].kind == Term::kDiv &&
        terms[0].coefficient == 1) {
      return divided(*terms[0].inner, terms[0].number * divisor);
    }
    return divided(index, divisor);
  }

  static std::uint64_t loops_in(const std::vector<Term>& terms) {
    std::uint64_t loops = 0;
    for (const Term& term : terms) {
      loops |= term.kind == Term::kAxis ? bit(static_cast<std::size_t>(term.number))
                                        : loops_in(term.inner->terms);
    }
    return loops;
  }

  static bool moves_unknown(const Term& term, std::size_t loop) {
    if (term.kind == Term::kAxis) return false;
    auto first = [loop](Int other) { return Int{static_cast<std::size_t>(other) == loop}; };
    if (term.kind == Term::kOpaque && step(term.inner->terms, term.inner->constant, first) != 0) return true;
    const auto& terms = term.inner->terms;
    return std::any_of(terms.begin(), terms.end(),
                       [loop](const Term& inner) { return moves_unknown(inner, loop); });
  }

  static Index sorted(const std::vector<Term>& terms) {
    Index index;
    for (const Term& term : terms) index = cdmpp::add(index, Index{{term}, 0});
    return index;
  }
};

// Tells the bounds of parts of an index, and takes it apart for division.
class Divider {
 public:
  // `reduces`: whether TVM comes to reduce the coefficients of a sum under a modulo as well.
  Divider(Int divisor, const LoopInts& extents, bool reduces = true)
      : divisor_(divisor), extents_(extents), reduces_(reduces) {}

  LoopIndex quotient(const LoopIndex& index) const {
    if (divisor_ == 1) return index;
    auto [multiple, rest] = separate(index);
    LoopIndex result = std::move(multiple);
    if (stays_below(rest, divisor_)) return result;
    if (auto single = factor(rest)) {
      // (c * x + y) / (c * d) = x / d for y below c.
      Divider inner(divisor_ / single->coefficient, extents_);
      result.add(inner.quotient(alone(*single)), 1);
      return result;
    }
    result.add({Term::kDiv, divisor_, std::make_shared<const Index>(rest.as_index()), 1}, 1);
    return result;
  }

  LoopIndex remainder(const LoopIndex& index) const {
    LoopIndex rest = separate(index).second;
    if (stays_below(rest, divisor_)) return rest;
    // TVM simplifies a sum of two under a modulo, not one of more.
    if (rest.num_terms() <= 2) {
      if (auto single = factor(rest)) {
        // (c * x + y) % (c * d) = (x % d) * c + y for y below c.
        LoopIndex x = alone(*single);
        rest.add(x, -single->coefficient);
        Divider inner(divisor_ / single->coefficient, extents_);
        rest.add(inner.remainder(x), single->coefficient);
        return rest;
      }
      if (reduces_) {
        for (Int& coefficient : rest.coefficients) coefficient = floor_mod(coefficient, divisor_);
        if (stays_below(rest, divisor_)) return rest;
      }
    }
    LoopIndex result(extents_.size());
    result.add({Term::kMod, divisor_, std::make_shared<const Index>(rest.as_index()), 1}, 1);
    return result;
  }

  LoopIndex without_multiples(const LoopIndex& index) const { return separate(index).second; }

 private:
  // Exact multiples of the divisor, divided by it; and the rest.
  std::pair<LoopIndex, LoopIndex> separate(const LoopIndex& index) const {
    std::pair<LoopIndex, LoopIndex> parts{extents_.size(), extents_.size()};
    auto& [multiple, rest] = parts;
    rest.constant = floor_mod(index.constant, divisor_);
    multiple.constant = (index.constant - rest.constant) / divisor_;
    for (std::size_t loop = 0; loop < extents_.size(); ++loop) {
      Int coefficient = index.coefficients[loop];
      if (coefficient == 0) continue;
      if (coefficient % divisor_ == 0) {
        multiple.coefficients[loop] = coefficient / divisor_;
      } else {
        rest.coefficients[loop] = coefficient;
      }
    }
    for (const Term& term : index.curved) {
      bool exact = term.coefficient % divisor_ == 0;
      std::vector<Term>& terms = (exact ? multiple : rest).curved;
      terms.push_back(term);
      if (exact) terms.back().coefficient /= divisor_;
    }
    return parts;
  }

  bool stays_below(const LoopIndex& index, Int limit) const {
    auto [low, high] = index.bounds(extents_);
    return low >= 0 && high < limit;
  }

  // A term whose coefficient divides the divisor, and is above all other terms together.
  std::optional<Term> factor(const LoopIndex& index) const {
    auto divides = [&](Int coefficient) { return coefficient > 1 && divisor_ % coefficient == 0; };
    auto [low, high] = index.bounds(extents_);
    for (std::size_t loop = 0; loop < extents_.size(); ++loop) {
      Int coefficient = index.coefficients[loop];
      if (!divides(coefficient)) continue;
      if (low >= 0 && high - coefficient * (extents_[loop] - 1) < coefficient) {
        return Term{Term::kAxis, static_cast<Int>(loop), nullptr, coefficient};
      }
    }
    for (const Term& term : index.curved) {
      if (!divides(term.coefficient)) continue;
      LoopIndex others = index;
      others.add(term, -1);
      if (stays_below(others, term.coefficient)) return term;
    }
    return std::nullopt;
  }

  // The atom of a term.
  LoopIndex alone(Term term) const {
    LoopIndex result(extents_.size());
    term.coefficient = 1;
    if (term.kind == Term::kAxis) {
      result.coefficients[static_cast<std::size_t>(term.number)] = 1;
    } else {
      result.curved.push_back(std::move(term));
    }
    return result;
  }

  Int divisor_;
  const LoopInts& extents_;
  bool reduces_;
};

inline LoopIndex in_loops(const Index& index, const std::vector<LoopIndex>& axes,
                          const LoopInts& extents);

// Make `result` the index in terms of loops, given each axis in those terms.
inline void put_in_loops(const Index& index, const std::vector<LoopIndex>& axes,
                         const LoopInts& extents, LoopIndex& result) {
  result.clear(extents.size());
  result.constant = index.constant;
  for (const Term& term : index.terms) {
    if (term.kind == Term::kAxis) {
      result.add(axes[static_cast<std::size_t>(term.number)], term.coefficient);
      continue;
    }
    LoopIndex inner = in_loops(*term.inner, axes, extents);
    if (term.kind == Term::kOpaque) {
      auto depends = std::make_shared<const Index>(inner.as_index());
      result.add({Term::kOpaque, term.number, std::move(depends), 1}, term.coefficient);
    } else {
      Divider divider(term.number, extents);
      bool divides = term.kind == Term::kDiv;
      result.add(divides ? divider.quotient(inner) : divider.remainder(inner), term.coefficient);
    }
  }
}

inline LoopIndex in_loops(const Index& index, const std::vector<LoopIndex>& axes,
                          const LoopInts& extents) {
  LoopIndex result;
  put_in_loops(index, axes, extents, result);
  return result;
}

}  // namespace cdmpp
