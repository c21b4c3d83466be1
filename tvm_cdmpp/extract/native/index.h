// Index expressions: how one buffer dimension is addressed by a stage's axes.
//
// An index is `constant + sum(coefficient * atom)`. An atom is an axis, a floor division or modulo
// of another index by a constant, or something opaque (data-dependent, not affine), which may reach
// the whole dimension once one of the axes it depends on moves. Three questions are asked of an
// index: its *span*, the length of the interval it covers while each axis runs over an interval of
// known length, as TVM's bound inference sees it; its *bounds* while the axes run from zero; and its
// *step*, how far it moves when the axes move.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cdmpp {

using Int = std::int64_t;

constexpr std::size_t kMaxTerms = 1024;  // of one index; networks have about a dozen

// Span of an index that is not known; far above any buffer dimension.
constexpr Int kUnbounded = Int{1} << 40;

inline Int ceil_div(Int a, Int b) { return (a + b - 1) / b; }
inline Int floor_div(Int a, Int b) { return a >= 0 ? a / b : -ceil_div(-a, b); }
inline Int floor_mod(Int a, Int b) { return a - floor_div(a, b) * b; }

struct Index;

struct Term {
  enum Kind : int { kAxis, kDiv, kMod, kOpaque };
  Kind kind;
  Int number;  // of the axis; the divisor; which opaque expression
  std::shared_ptr<const Index> inner;  // what is divided; what an opaque expression depends on
  Int coefficient;
};

struct Index {
  std::vector<Term> terms;  // each atom once, in the order of `compare`
  Int constant = 0;

  bool is_axis() const {
    return constant == 0 && terms.size() == 1 && terms[0].kind == Term::kAxis &&
           terms[0].coefficient == 1;
  }
};

using Indices = std::vector<Index>;  // one per dimension of a buffer

inline int compare(const Index& a, const Index& b);

// Order of atoms, whatever their coefficients.
inline int compare(const Term& a, const Term& b) {
  if (a.kind != b.kind) return a.kind < b.kind ? -1 : 1;
  if (a.number != b.number) return a.number < b.number ? -1 : 1;
  return a.inner ? compare(*a.inner, *b.inner) : 0;
}

inline bool same_terms(const Index& a, const Index& b) {
  return a.terms.size() == b.terms.size() &&
         std::equal(a.terms.begin(), a.terms.end(), b.terms.begin(),
                    [](const Term& s, const Term& t) {
                      return s.coefficient == t.coefficient && compare(s, t) == 0;
                    });
}

inline int compare(const Index& a, const Index& b) {
  if (a.constant != b.constant) return a.constant < b.constant ? -1 : 1;
  if (a.terms.size() != b.terms.size()) return a.terms.size() < b.terms.size() ? -1 : 1;
  for (std::size_t n = 0; n < a.terms.size(); ++n) {
    const Term &s = a.terms[n], &t = b.terms[n];
    if (s.coefficient != t.coefficient) return s.coefficient < t.coefficient ? -1 : 1;
    if (int order = compare(s, t)) return order;
  }
  return 0;
}

inline Index axis_index(Int number) { return {{{Term::kAxis, number, nullptr, 1}}, 0}; }

inline Index add(const Index& a, const Index& b) {
  Index sum{{}, a.constant + b.constant};
  auto s = a.terms.begin(), t = b.terms.begin();
  while (s != a.terms.end() || t != b.terms.end()) {
    int order = s == a.terms.end() ? 1 : t == b.terms.end() ? -1 : compare(*s, *t);
    Term term = order <= 0 ? *s++ : *t;
    if (order >= 0) {
      if (order == 0) term.coefficient += t->coefficient;
      ++t;
    }
    if (term.coefficient != 0) sum.terms.push_back(std::move(term));
  }
  return sum;
}

inline Index scaled(Index index, Int factor) {
  if (factor == 0) return {};
  for (Term& term : index.terms) term.coefficient *= factor;
  index.constant *= factor;
  return index;
}

// `index // divisor`, exact where everything divides.
inline Index divided(Index index, Int divisor) {
  if (divisor == 1) return index;
  bool exact = index.constant % divisor == 0;
  for (const Term& term : index.terms) exact = exact && term.coefficient % divisor == 0;
  if (!exact) {
    auto inner = std::make_shared<const Index>(std::move(index));
    return {{{Term::kDiv, divisor, std::move(inner), 1}}, 0};
  }
  for (Term& term : index.terms) term.coefficient /= divisor;
  index.constant /= divisor;
  return index;
}

// `index % divisor`, without the terms that are multiples of the divisor.
inline Index remainder(const Index& index, Int divisor) {
  auto kept = std::make_shared<Index>();
  kept->constant = floor_mod(index.constant, divisor);
  for (const Term& term : index.terms) {
    if (term.coefficient % divisor != 0) kept->terms.push_back(term);
  }
  if (kept->terms.empty()) return {{}, kept->constant};
  return {{{Term::kMod, divisor, std::move(kept), 1}}, 0};
}

// Terms of an index, those inside of its atoms included; `of_axis(a)` for one that is an axis.
template <class OfAxis>
std::size_t num_terms(const Index& index, const OfAxis& of_axis) {
  std::size_t count = 0;
  for (const Term& term : index.terms) {
    count += term.kind == Term::kAxis ? of_axis(term.number) : 1 + num_terms(*term.inner, of_axis);
  }
  return count;
}

inline std::size_t num_terms(const Index& index) {
  return num_terms(index, [](Int) { return std::size_t{1}; });
}

// `substituted`, whatever the length.
inline Index replaced(const Index& index, const std::vector<Index>& axes) {
  Index result{{}, index.constant};
  for (const Term& term : index.terms) {
    Index atom;
    switch (term.kind) {
      case Term::kAxis:
        atom = axes[static_cast<std::size_t>(term.number)];
        break;
      case Term::kDiv:
        atom = divided(replaced(*term.inner, axes), term.number);
        break;
      case Term::kMod:
        atom = remainder(replaced(*term.inner, axes), term.number);
        break;
      case Term::kOpaque: {
        auto inner = std::make_shared<const Index>(replaced(*term.inner, axes));
        atom = {{{Term::kOpaque, term.number, std::move(inner), 1}}, 0};
      }
    }
    result = add(result, scaled(std::move(atom), term.coefficient));
  }
  return result;
}

// Replace every axis `a` by `axes[a]`, as inlining a producer into its consumer does. Refuses
// before it makes an index that is too long, as repeated substitutions may double one each time.
inline Index substituted(const Index& index, const std::vector<Index>& axes) {
  std::size_t count = num_terms(
      index, [&axes](Int axis) { return num_terms(axes[static_cast<std::size_t>(axis)]); });
  if (count > kMaxTerms) {
    throw std::length_error("an index of more than " + std::to_string(kMaxTerms) + " terms");
  }
  return replaced(index, axes);
}

// How many rows of length `row` a block of values meets at most, blocks lying end to end.
inline Int rows_met(Int block, Int row) {
  return (row - std::gcd(block, row) + block - 1) / row + 1;
}

// Length of the interval covered, wherever it starts, while axis `a` runs over `cover(a)` values.
template <class Cover>
Int span(const Index& index, const Cover& cover) {
  Int total = 1;
  for (const Term& term : index.terms) {
    Int length = term.kind == Term::kAxis ? cover(term.number) : span(*term.inner, cover);
    if (term.kind == Term::kMod) {
      length = std::min(length, term.number);
    } else if (term.kind == Term::kOpaque) {
      length = length > 1 ? kUnbounded : 1;
    } else if (term.kind == Term::kDiv && length < kUnbounded) {
      length = rows_met(length, term.number);
    }
    if (length >= kUnbounded) return kUnbounded;
    total += std::abs(term.coefficient) * (length - 1);
  }
  return total;
}

// Smallest and largest value of a sum while axis `a` runs from 0 to `largest(a)`.
template <class Largest>
std::pair<Int, Int> bounds(const std::vector<Term>& terms, Int constant, const Largest& largest) {
  Int low = constant, high = constant;
  for (const Term& term : terms) {
    std::pair<Int, Int> atom{0, 0};
    if (term.kind == Term::kAxis) {
      atom.second = largest(term.number);
    } else {
      atom = bounds(term.inner->terms, term.inner->constant, largest);
      auto [first, last] = atom;
      Int divisor = term.number;
      if (term.kind == Term::kOpaque) {
        atom = {0, last > first ? kUnbounded : 0};
      } else if (last >= kUnbounded) {
        atom = {0, term.kind == Term::kMod ? divisor - 1 : kUnbounded};
      } else if (term.kind == Term::kDiv) {
        atom = {floor_div(first, divisor), floor_div(last, divisor)};
      } else if (floor_div(first, divisor) == floor_div(last, divisor)) {
        atom = {floor_mod(first, divisor), floor_mod(last, divisor)};
      } else {
        atom = {0, divisor - 1};
      }
    }
    if (atom.second >= kUnbounded) return {-kUnbounded, kUnbounded};
    bool up = term.coefficient > 0;
    low += term.coefficient * (up ? atom.first : atom.second);
    high += term.coefficient * (up ? atom.second : atom.first);
  }
  return {low, high};
}

// Value of a sum where axis `a` is `value(a)`; opaque atoms count as zero.
template <class Value>
Int value_at(const std::vector<Term>& terms, Int constant, const Value& value) {
  Int total = constant;
  for (const Term& term : terms) {
    switch (term.kind) {
      case Term::kAxis:
        total += term.coefficient * value(term.number);
        break;
      case Term::kDiv:
        total += term.coefficient * floor_div(value_at(term.inner->terms, term.inner->constant, value), term.number);
        break;
      case Term::kMod:
        total += term.coefficient * floor_mod(value_at(term.inner->terms, term.inner->constant, value), term.number);
        break;
      case Term::kOpaque:
        break;
    }
  }
  return total;
}

// How far a sum moves when axis `a` moves from 0 to `moved(a)`.
template <class Moved>
Int step(const std::vector<Term>& terms, Int constant, const Moved& moved) {
  return value_at(terms, constant, moved) - value_at(terms, constant, [](Int) { return Int{0}; });
}

}  // namespace cdmpp
