// What is known about one leaf before it becomes a computation vector (`tvm_cdmpp.ast.leaf`).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "index.h"

namespace cdmpp {

constexpr int kNumOps = 13;
constexpr std::size_t kCompare = 8, kSelect = 10, kBool = 11;  // integer comparisons; choices
using OpCounts = std::array<Int, kNumOps>;

// Kinds of loops: Ansor's annotation numbers. From kVthread on, a loop is bound to a GPU index;
// even ones are threads, odd ones blocks.
enum LoopKind : int { kSerial, kUnrolled, kVectorized, kParallel, kVthread, kBlockX, kThreadX };
constexpr int kNumLoopKinds = 11;
inline bool is_bound(int kind) { return kind >= kVthread; }
inline bool is_block(int kind) { return kind > kVthread && kind % 2 == 1; }
inline bool is_thread(int kind) { return kind > kVthread && kind % 2 == 0; }

enum Scope : int { kUnset = -1, kGlobal = 0, kShared = 1, kLocal = 2 };

struct Loop {
  Int extent;
  int kind;
  bool is_reduce;
};

struct Access {
  Int element_bytes;
  int scope;
  bool is_inside;
  std::vector<Int> shape;
  std::vector<Int> cover;  // [dimension][level], levels being loops + 1
  std::vector<Int> steps;  // [loop]
  // [dimension][2]: cover while the outermost parallel loop makes two iterations, and one core's.
  std::vector<Int> share;
};

struct Leaf {
  int buffer;
  int nest;
  int origin;  // operation of the DAG that the stage stems from; -1 if not known
  bool is_init;
  Int position;
  Int unroll_limit;
  Int compute_bytes;
  OpCounts ops;
  std::vector<Loop> loops;
  std::vector<Access> accesses;  // the store first
};

// Which loop is shared out among the cores: the outermost parallel one; the number of loops if none.
inline std::size_t parallel_loop(const std::vector<Loop>& loops) {
  auto found = std::find_if(loops.begin(), loops.end(),
                            [](const Loop& loop) { return loop.kind == kParallel; });
  return static_cast<std::size_t>(found - loops.begin());
}

// Consecutive iterations of a parallel loop that TVM gives to one core.
inline Int iterations_of_core(Int extent, double cores) {
  if (!(cores >= 1)) return 1;
  return ceil_div(extent, static_cast<Int>(std::min(cores, static_cast<double>(extent))));
}

// Facts as a list of integers, for Python.
inline void pack(const Leaf& leaf, std::vector<Int>& out) {
  out.insert(out.end(), {leaf.buffer, leaf.nest, leaf.origin, leaf.is_init, leaf.position,
                         leaf.unroll_limit, leaf.compute_bytes});
  out.insert(out.end(), leaf.ops.begin(), leaf.ops.end());
  out.push_back(static_cast<Int>(leaf.loops.size()));
  for (const Loop& loop : leaf.loops) {
    out.insert(out.end(), {loop.extent, loop.kind, loop.is_reduce});
  }
  out.push_back(static_cast<Int>(leaf.accesses.size()));
  for (const Access& access : leaf.accesses) {
    out.insert(out.end(), {access.element_bytes, access.scope, access.is_inside,
                           static_cast<Int>(access.shape.size())});
    out.insert(out.end(), access.shape.begin(), access.shape.end());
    out.insert(out.end(), access.cover.begin(), access.cover.end());
    out.insert(out.end(), access.steps.begin(), access.steps.end());
    out.insert(out.end(), access.share.begin(), access.share.end());
  }
}

template <class Reader>
Leaf unpack(Reader& read) {
  Leaf leaf;
  leaf.buffer = static_cast<int>(read());
  leaf.nest = static_cast<int>(read());
  leaf.origin = static_cast<int>(read());
  leaf.is_init = read() != 0;
  leaf.position = read();
  leaf.unroll_limit = read();
  leaf.compute_bytes = read();
  for (Int& count : leaf.ops) count = read();
  for (Int n = read(); n > 0; --n) {
    Int extent = read();
    int kind = static_cast<int>(read());
    leaf.loops.push_back({extent, kind, read() != 0});
  }
  std::size_t levels = leaf.loops.size() + 1;
  for (Int n = read(); n > 0; --n) {
    Access access;
    access.element_bytes = read();
    access.scope = static_cast<int>(read());
    access.is_inside = read() != 0;
    access.shape.resize(static_cast<std::size_t>(read()));
    access.cover.resize(access.shape.size() * levels);
    access.steps.resize(leaf.loops.size());
    access.share.resize(access.shape.size() * 2);
    for (auto* values : {&access.shape, &access.cover, &access.steps, &access.share}) {
      for (Int& value : *values) value = read();
    }
    leaf.accesses.push_back(std::move(access));
  }
  return leaf;
}

}  // namespace cdmpp
