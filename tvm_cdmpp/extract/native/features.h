// Computation vectors from the facts about the leaves of one program.
//
// `write_fields` is the only definition of the vector: it names every field where it computes it.
// `tvm_cdmpp.ast.schema` documents the fields, in the same order; counts and sizes are stored as
// log2(1 + x).
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <tuple>

#include "leaf.h"

namespace cdmpp {

// What Ansor is told about the machine (`tvm.auto_scheduler.HardwareParams`).
struct Hardware {
  double cores, vector_bytes, line_bytes, shared_bytes, local_bytes, threads, vthreads, warp;
};

constexpr int kNumSlots = 5;
constexpr const char* kSlots[kNumSlots] = {"write", "read0", "read1", "read2", "rest"};
constexpr int kNumInnerLoops = 4;
constexpr int kNumCapacities = 8;
constexpr double kCapacities[kNumCapacities] = {4096,   16384,   32768,   131072,
                                                524288, 2097152, 8388608, 33554432};
constexpr const char* kOpNames[kNumOps] = {
    "float_add", "float_mul",   "float_div", "float_compare", "float_math", "int_add", "int_mul",
    "int_div",   "int_compare", "int_math",  "select",        "bool",       "cast"};
constexpr double kSectorBytes = 32;  // what a GPU moves at least

// Writes the fields of one vector one after the other; counts become logarithms later, all at once.
class VectorWriter {
 public:
  explicit VectorWriter(float* row) : next_(row) {}
  void log2(const char*, const char*, double value) { *next_++ = static_cast<float>(value); }
  void plain(const char*, const char*, double value) { *next_++ = static_cast<float>(value); }

 private:
  float* next_;
};

// Collects names instead of values.
class NameWriter {
 public:
  void log2(const char* prefix, const char* name, double) { add(prefix, name, true); }
  void plain(const char* prefix, const char* name, double) { add(prefix, name, false); }
  std::string names;                // separated by spaces
  std::vector<float> is_log;    // 1 or 0

 private:
  void add(const char* prefix, const char* name, bool log) {
    if (!names.empty()) names += ' ';
    if (*prefix) names += std::string(prefix) + '_';
    names += name;
    is_log.push_back(log ? 1.0F : 0.0F);
  }
};

// The memory that one access touches; levels as in `Access::cover`.
struct Touched {
  const Access* access;
  double allocated_bytes;
  std::vector<double> bytes;       // [level]
  std::vector<double> line_bytes;  // [level], in whole cache lines
  double two_line_bytes;   // of two parallel iterations
  double core_line_bytes;  // of one core
};

// Bytes of a box of elements, `cover(dim)` long, and of the lines it lies in.
template <class Cover>
std::pair<double, double> box_bytes(const Access& access, double line, const Cover& cover) {
  // Consecutive memory grows outwards as long as the inner dimensions are whole.
  double run = static_cast<double>(access.element_bytes), rows = 1;
  bool whole = true;
  for (std::size_t dim = access.shape.size(); dim-- > 0;) {
    Int reach = cover(dim);
    (whole ? run : rows) *= static_cast<double>(reach);
    whole = whole && reach == access.shape[dim];
  }
  return {rows * run, rows * std::ceil(run / line) * line};
}

inline void measure(const Access& access, std::size_t levels, double line, Touched& touched) {
  touched.access = &access;
  auto element = static_cast<double>(access.element_bytes);
  touched.allocated_bytes = element;
  for (Int extent : access.shape) touched.allocated_bytes *= static_cast<double>(extent);
  touched.bytes.resize(levels);
  touched.line_bytes.resize(levels);
  for (std::size_t level = 0; level < levels; ++level) {
    std::tie(touched.bytes[level], touched.line_bytes[level]) = box_bytes(
        access, line, [&](std::size_t dim) { return access.cover[dim * levels + level]; });
  }
  touched.two_line_bytes =
      box_bytes(access, line, [&](std::size_t dim) { return access.share[dim * 2]; }).second;
  touched.core_line_bytes =
      box_bytes(access, line, [&](std::size_t dim) { return access.share[dim * 2 + 1]; }).second;
}

// Reads in an order that does not depend on where they stand in the expression.
inline bool comes_first(const Touched& a, const Touched& b) {
  if (a.allocated_bytes != b.allocated_bytes) return a.allocated_bytes > b.allocated_bytes;
  if (a.bytes.front() != b.bytes.front()) return a.bytes.front() > b.bytes.front();
  if (a.access->cover != b.access->cover) return a.access->cover > b.access->cover;
  if (a.access->steps != b.access->steps) return a.access->steps > b.access->steps;
  if (a.access->share != b.access->share) return a.access->share > b.access->share;
  if (a.access->is_inside != b.access->is_inside) return a.access->is_inside;
  return a.access->scope > b.access->scope;
}

// What is known about the nest that a leaf stands in.
struct NestFacts {
  double shared_bytes = 0;  // allocated for one block of GPU threads
  double local_bytes = 0;   // allocated for one thread
};

// Everything about one leaf that several fields need.
struct LeafFacts {
  const Leaf* leaf;
  NestFacts nest;
  std::vector<Touched> touched;  // the store first
  std::size_t used;              // of these
  double executions, spatial, reduce;
  double by_kind[kNumLoopKinds];  // products of extents
  std::size_t parallel;           // the loop that is shared out among cores
  double cores;                   // busy with it
  double rounds;                  // iterations of each, one after the other
};

inline void gather(const Leaf& leaf, const Hardware& hardware, LeafFacts& facts) {
  facts.leaf = &leaf;
  facts.used = leaf.accesses.size();
  if (facts.touched.size() < facts.used) facts.touched.resize(facts.used);
  for (std::size_t n = 0; n < facts.used; ++n) {
    measure(leaf.accesses[n], leaf.loops.size() + 1, hardware.line_bytes, facts.touched[n]);
  }
  std::sort(facts.touched.begin() + 1, facts.touched.begin() + static_cast<Int>(facts.used),
            comes_first);
  facts.executions = facts.spatial = facts.reduce = 1;
  std::fill(std::begin(facts.by_kind), std::end(facts.by_kind), 1.0);
  for (const Loop& loop : leaf.loops) {
    auto extent = static_cast<double>(loop.extent);
    facts.executions *= extent;
    (loop.is_reduce ? facts.reduce : facts.spatial) *= extent;
    facts.by_kind[loop.kind] *= extent;
  }
  facts.parallel = parallel_loop(leaf.loops);
  facts.cores = facts.rounds = 1;
  if (facts.parallel < leaf.loops.size()) {
    Int extent = leaf.loops[facts.parallel].extent;
    Int rounds = iterations_of_core(extent, hardware.cores);
    facts.rounds = static_cast<double>(rounds);
    facts.cores = static_cast<double>(ceil_div(extent, rounds));
  }
}

template <class Writer>
void write_arithmetic(const LeafFacts& facts, Writer& out) {
  const Leaf& leaf = *facts.leaf;
  double all = 0;
  for (int n = 0; n < kNumOps; ++n) {
    auto ops = static_cast<double>(leaf.ops[static_cast<std::size_t>(n)]);
    out.log2(kOpNames[n], "ops", ops * facts.executions);
    all += ops;
  }
  out.log2("", "compute_bytes", static_cast<double>(leaf.compute_bytes));
  out.plain("", "is_init", leaf.is_init);
  out.plain("", "is_copy", all == 0 && !leaf.is_init);
  out.log2("", "executions", facts.executions);
}

template <class Writer>
void write_loops(const LeafFacts& facts, Writer& out) {
  const auto& loops = facts.leaf->loops;
  out.log2("", "spatial_executions", facts.spatial);
  out.log2("", "reduce_executions", facts.reduce);
  out.log2("", "num_loops", static_cast<double>(loops.size()));
  double spatial_inside = 1, reduce_inside = 1;
  bool met_spatial = false, met_reduce = false;
  for (auto loop = loops.rbegin(); loop != loops.rend(); ++loop) {
    (loop->is_reduce ? met_reduce : met_spatial) = true;
    auto extent = static_cast<double>(loop->extent);
    if (!met_reduce) spatial_inside *= extent;
    if (!met_spatial) reduce_inside *= extent;
  }
  out.log2("", "spatial_inside", spatial_inside);
  out.log2("", "reduce_inside", reduce_inside);
  static constexpr const char* kInner[] = {"inner0", "inner1", "inner2", "inner3"};
  for (std::size_t n = 0; n < kNumInnerLoops; ++n) {
    const Loop* loop = n < loops.size() ? &loops[loops.size() - 1 - n] : nullptr;
    out.log2(kInner[n], "extent", loop ? static_cast<double>(loop->extent) - 1 : 0);
    out.plain(kInner[n], "is_reduce", loop && loop->is_reduce);
  }
}

template <class Writer>
void write_annotations(const LeafFacts& facts, Writer& out) {
  const Leaf& leaf = *facts.leaf;
  auto limit = static_cast<double>(leaf.unroll_limit);
  out.log2("", "unroll_extent", facts.by_kind[kUnrolled]);
  out.log2("", "unroll_limit", limit);
  // TVM unrolls a nest when its steps stay within the limit; vectorized loops do not count.
  double steps = 1, body = 1;
  for (auto loop = leaf.loops.rbegin(); loop != leaf.loops.rend(); ++loop) {
    if (loop->kind != kVectorized) steps *= static_cast<double>(loop->extent);
    if (steps <= std::max(limit, 1.0)) body = steps;
  }
  out.log2("", "unrolled_body", body);
}

template <class Writer>
void write_parallelism(const LeafFacts& facts, const Hardware& hardware, Writer& out) {
  double parallel = facts.by_kind[kParallel];
  double rounds = hardware.cores > 0 ? std::ceil(parallel / hardware.cores) : 1;
  out.log2("", "parallel_extent", parallel);
  out.log2("", "task_executions", facts.executions / parallel);
  out.log2("", "core_executions", facts.executions / parallel * rounds);
  out.plain("", "core_use", hardware.cores > 0 ? parallel / (rounds * hardware.cores) : 0);
}

template <class Writer>
void write_vectors(const LeafFacts& facts, const Hardware& hardware, Writer& out) {
  const auto& loops = facts.leaf->loops;
  const Access& store = *facts.touched[0].access;
  double extent = facts.by_kind[kVectorized];
  out.log2("", "vector_extent", extent);
  out.plain("", "is_vectorized", !loops.empty() && loops.back().kind == kVectorized);
  double registers = extent * static_cast<double>(store.element_bytes) / hardware.vector_bytes;
  out.plain("", "vector_use", registers / std::ceil(registers));
  // The values that stay open inside the innermost reduction loop, in vector registers.
  double open = 1;
  for (auto loop = loops.rbegin(); loop != loops.rend() && !loop->is_reduce; ++loop) {
    open *= static_cast<double>(loop->extent);
  }
  open *= static_cast<double>(store.element_bytes) / hardware.vector_bytes;
  out.log2("", "open_registers", facts.reduce > 1 ? open : 0);
}

// A slot's share of the vector; the last slot holds all accesses that have no slot of their own.
struct Slot {
  std::size_t first, end;
};

inline Slot slot_of(const LeafFacts& facts, std::size_t n) {
  std::size_t end = n + 1 < kNumSlots ? n + 1 : facts.used;
  return {std::min(n, facts.used), std::min(std::max(end, n), facts.used)};
}

template <class Writer>
void write_memory(const LeafFacts& facts, const Hardware& hardware, Writer& out) {
  const auto& loops = facts.leaf->loops;
  std::size_t inner = loops.size() - 1;  // meaningless without loops
  for (std::size_t n = 0; n < kNumSlots; ++n) {
    Slot slot = slot_of(facts, n);
    double element = 0, unique = 0, lines = 0, tile = 0, stride = 0, second = 0;
    bool is_inside = false, is_shared = false, aligned = slot.first < slot.end;
    for (std::size_t at = slot.first; at < slot.end; ++at) {
      const Touched& touched = facts.touched[at];
      const Access& access = *touched.access;
      element = std::max(element, static_cast<double>(access.element_bytes));
      unique += touched.bytes.front();
      lines += touched.line_bytes.front();
      tile += touched.bytes[loops.size() < 2 ? 0 : loops.size() - 2];
      if (!loops.empty()) stride = std::max(stride, static_cast<double>(access.steps[inner]));
      if (loops.size() > 1) {
        second = std::max(second, static_cast<double>(access.steps[inner - 1]));
      }
      is_inside = is_inside || access.is_inside;
      is_shared = is_shared || access.scope == kShared;
      Int row = access.element_bytes * (access.shape.empty() ? 1 : access.shape.back());
      aligned = aligned && row % static_cast<Int>(hardware.vector_bytes) == 0;
    }
    bool used = slot.first < slot.end, nested = used && !loops.empty();
    out.log2(kSlots[n], "element_bytes", element);
    out.log2(kSlots[n], "access_bytes", facts.executions * element);
    out.log2(kSlots[n], "unique_bytes", unique);
    out.log2(kSlots[n], "line_bytes", lines);
    out.log2(kSlots[n], "tile_bytes", tile);
    out.log2(kSlots[n], "stride", stride);
    out.log2(kSlots[n], "second_stride", second);
    out.plain(kSlots[n], "is_invariant", nested && stride == 0);
    out.plain(kSlots[n], "is_contiguous", nested && stride == 1);
    out.plain(kSlots[n], "is_aligned", aligned);
    out.plain(kSlots[n], "is_inside", is_inside);
    out.plain(kSlots[n], "is_shared", is_shared);
  }
}

template <class Writer>
void write_reuse(const LeafFacts& facts, const std::vector<double>& footprint, Writer& out) {
  const auto& loops = facts.leaf->loops;
  for (std::size_t n = 0; n < kNumSlots; ++n) {
    Slot slot = slot_of(facts, n);
    double accessed = 0, unique = 0, count = 0, distance = 0;
    for (std::size_t at = slot.first; at < slot.end; ++at) {
      const Touched& touched = facts.touched[at];
      accessed += facts.executions * static_cast<double>(touched.access->element_bytes);
      unique += touched.bytes.front();
    }
    if (slot.first < slot.end) {
      // The innermost loop that comes back to the same elements, and all that is touched meanwhile.
      const Touched& touched = facts.touched[slot.first];
      for (std::size_t loop = loops.size(); loop-- > 0;) {
        if (touched.bytes[loop] != touched.bytes[loop + 1]) continue;
        count = static_cast<double>(loops[loop].extent);
        distance = footprint[loop + 1];
        break;
      }
    }
    out.log2(kSlots[n], "reuse", accessed / std::max(unique, 1.0));
    out.log2(kSlots[n], "reuse_count", count);
    out.log2(kSlots[n], "reuse_distance", distance);
  }
}

// What each core touches of what all touch: TVM gives a core consecutive iterations of a parallel
// loop, and which elements those reach depends on how the loop was fused.
template <class Writer>
void write_cores(const LeafFacts& facts, Writer& out) {
  bool shared = facts.parallel < facts.leaf->loops.size();
  double all = 0;
  for (std::size_t n = 0; n < kNumSlots; ++n) {
    Slot slot = slot_of(facts, n);
    double core = 0, next = 0, total = 0;
    for (std::size_t at = slot.first; at < slot.end; ++at) {
      const Touched& touched = facts.touched[at];
      total += touched.line_bytes.front();
      core += touched.core_line_bytes;
      if (facts.rounds > 1 && facts.parallel == 0) {
        next += std::max(touched.two_line_bytes - touched.line_bytes[facts.parallel + 1], 0.0);
      }
    }
    all += core;
    out.log2(kSlots[n], "core_bytes", core);
    out.log2(kSlots[n], "next_bytes", next);
    out.log2(kSlots[n], "sharers", shared && total > 0 ? facts.cores * core / total : 0);
  }
  out.log2("", "core_working_set", all);
}

template <class Writer>
void write_traffic(const LeafFacts& facts, const std::vector<double>& footprint, Writer& out) {
  static constexpr const char* kTraffic[] = {
      "traffic_4096",   "traffic_16384",   "traffic_32768",   "traffic_131072",
      "traffic_524288", "traffic_2097152", "traffic_8388608", "traffic_33554432"};
  static constexpr const char* kIntensity[] = {
      "intensity_4096",   "intensity_16384",   "intensity_32768",   "intensity_131072",
      "intensity_524288", "intensity_2097152", "intensity_8388608", "intensity_33554432"};
  const auto& loops = facts.leaf->loops;
  double ops = 0;
  for (std::size_t n = 0; n < kNumOps; ++n) ops += static_cast<double>(facts.leaf->ops[n]);
  out.log2("", "working_set", footprint.front());
  double two = 0, core = 0;
  for (std::size_t n = 0; n < facts.used; ++n) {
    two += facts.touched[n].two_line_bytes;
    core += facts.touched[n].core_line_bytes;
  }
  double moved[kNumCapacities];
  for (int n = 0; n < kNumCapacities; ++n) {
    // The innermost level always "fits": one execution streams through any cache.
    std::size_t level = 0;
    double outside = 1;
    while (level < loops.size() && footprint[level] > kCapacities[n]) {
      outside *= static_cast<double>(loops[level++].extent);
    }
    moved[n] = footprint[level] * outside;
    if (level == 1 && facts.parallel == 0 && footprint[1] <= kCapacities[n]) {
      // What a core's cache keeps from one parallel iteration to the next.
      double streamed = footprint[1] + (facts.rounds - 1) * std::max(two - footprint[1], 0.0);
      moved[n] = facts.cores * (core <= kCapacities[n] ? core : streamed);
    }
    out.log2("", kTraffic[n], moved[n]);
  }
  for (int n = 0; n < kNumCapacities; ++n) {
    out.log2("", kIntensity[n], ops * facts.executions / std::max(moved[n], 1.0));
  }
}

template <class Writer>
void write_allocation(const LeafFacts& facts, Writer& out) {
  const Touched& store = facts.touched[0];
  double elements = store.allocated_bytes / static_cast<double>(store.access->element_bytes);
  out.log2("", "buffer_bytes", store.allocated_bytes);
  out.log2("", "buffer_fills", facts.spatial / std::max(elements, 1.0));
  out.plain("", "buffer_is_register", store.access->scope == kLocal);
  out.log2("", "num_accesses", static_cast<double>(facts.used));
}

template <class Writer>
void write_gpu(const LeafFacts& facts, const Hardware& hardware, Writer& out) {
  double blocks = 1, threads = 1;
  for (int kind = kVthread + 1; kind < kNumLoopKinds; ++kind) {
    (is_block(kind) ? blocks : threads) *= facts.by_kind[kind];
  }
  double warp = std::max(hardware.warp, 1.0);
  auto share = [](double value, double limit) { return limit > 0 ? value / limit : 0; };
  out.log2("", "block_extent", blocks);
  out.log2("", "thread_extent", threads);
  out.log2("", "vthread_extent", facts.by_kind[kVthread]);
  out.plain("", "warp_use", threads > 1 ? threads / (std::ceil(threads / warp) * warp) : 0);
  out.plain("", "thread_share", share(threads, hardware.threads));
  out.log2("", "shared_bytes", facts.nest.shared_bytes);
  out.plain("", "shared_share", share(facts.nest.shared_bytes, hardware.shared_bytes));
  out.log2("", "register_bytes", facts.nest.local_bytes);
  const auto& loops = facts.leaf->loops;
  std::size_t across = loops.size();
  for (std::size_t n = 0; n < loops.size(); ++n) {
    if (loops[n].kind == kThreadX) across = n;
  }
  for (std::size_t n = 0; n < kNumSlots; ++n) {
    Slot slot = slot_of(facts, n);
    double sectors = 0;
    for (std::size_t at = slot.first; at < slot.end && across < loops.size(); ++at) {
      const Access& access = *facts.touched[at].access;
      if (access.scope == kLocal) continue;  // registers
      double lanes = std::min(warp, static_cast<double>(loops[across].extent));
      double bytes = static_cast<double>(access.element_bytes);
      double reach = (lanes - 1) * static_cast<double>(access.steps[across]) * bytes + bytes;
      sectors += std::min(lanes, std::ceil(reach / kSectorBytes));
    }
    out.log2(kSlots[n], "warp_sectors", sectors);
  }
}

template <class Writer>
void write_fields(const LeafFacts& facts, const Hardware& hardware, Writer& out) {
  std::vector<double> footprint(facts.leaf->loops.size() + 1, 0.0);
  for (std::size_t n = 0; n < facts.used; ++n) {
    for (std::size_t level = 0; level < footprint.size(); ++level) {
      footprint[level] += facts.touched[n].line_bytes[level];
    }
  }
  write_arithmetic(facts, out);
  write_loops(facts, out);
  write_annotations(facts, out);
  write_parallelism(facts, hardware, out);
  write_vectors(facts, hardware, out);
  write_memory(facts, hardware, out);
  write_reuse(facts, footprint, out);
  write_cores(facts, out);
  write_traffic(facts, footprint, out);
  write_allocation(facts, out);
  write_gpu(facts, hardware, out);
}

// Names of the fields, and which are logarithms.
inline const NameWriter& field_names() {
  static const NameWriter names = [] {
    Leaf leaf{0, 0, 0, false, 0, 0, 0, {}, {}, {{4, kGlobal, false, {}, {}, {}, {}}}};
    Hardware hardware{1, 64, 64, 0, 0, 0, 0, 1};
    LeafFacts facts;
    gather(leaf, hardware, facts);
    NameWriter writer;
    write_fields(facts, hardware, writer);
    return writer;
  }();
  return names;
}

inline std::size_t num_fields() { return field_names().is_log.size(); }

// Describes programs, one after the other.
class Features {
 public:
  explicit Features(const Hardware& hardware) : hardware_(hardware) {}

  // Append the vectors of one program's leaves, logarithms still to be taken.
  void append(const std::vector<Leaf*>& leaves, std::vector<float>& vectors) {
    find_nests(leaves);
    std::size_t first = vectors.size();
    vectors.resize(first + leaves.size() * num_fields());
    float* row = vectors.data() + first;
    for (const Leaf* leaf : leaves) {
      gather(*leaf, hardware_, facts_);
      facts_.nest = nests_[static_cast<std::size_t>(leaf->nest)];
      VectorWriter writer(row);
      write_fields(facts_, hardware_, writer);
      row += num_fields();
    }
  }

 private:
  void find_nests(const std::vector<Leaf*>& leaves) {
    nests_.assign(leaves.empty() ? 0 : static_cast<std::size_t>(leaves.back()->nest) + 1, {});
    int known = 0;
    for (const Leaf* leaf : leaves) {
      if (leaf->buffer < known) continue;
      known = leaf->buffer + 1;
      const Access& store = leaf->accesses.front();
      auto bytes = static_cast<double>(store.element_bytes);
      for (Int extent : store.shape) bytes *= static_cast<double>(extent);
      NestFacts& nest = nests_[static_cast<std::size_t>(leaf->nest)];
      if (store.scope == kShared) nest.shared_bytes += bytes;
      if (store.scope == kLocal) nest.local_bytes += bytes;
    }
  }

  Hardware hardware_;
  LeafFacts facts_;
  std::vector<NestFacts> nests_;
};

// log2(1 + count) of a count, exact for powers of two; plain enough for the compiler to vectorize.
inline float log2_of_one_more(float count) {
  float x = 1.0F + count;
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  // x = mantissa * 2^exponent, the mantissa between 0.707 and 1.414.
  std::uint32_t shifted = bits - 0x3f3504f3U;
  auto exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  std::uint32_t rest = (shifted & 0x007fffffU) + 0x3f3504f3U;
  float mantissa;
  std::memcpy(&mantissa, &rest, sizeof(mantissa));
  // 2 / ln 2 * atanh(t), up to t^9: what is left out is below the precision of a float.
  float t = (mantissa - 1.0F) / (mantissa + 1.0F), u = t * t;
  float series = 1.0F + u * (1.0F / 3 + u * (1.0F / 5 + u * (1.0F / 7 + u * (1.0F / 9))));
  return exponent + 2.885390082F * t * series;
}

// Copy vectors, the counts among their fields turned into logarithms.
inline void take_logarithms(const float* vectors, std::size_t num_leaves, float* scaled) {
  // Bits to take from the logarithm; a choice between floats would keep the compiler from
  // vectorizing.
  static const std::vector<std::uint32_t> masks = [] {
    std::vector<std::uint32_t> made;
    for (float is_log : field_names().is_log) made.push_back(is_log != 0.0F ? ~0U : 0U);
    return made;
  }();
  const std::uint32_t* mask = masks.data();
  std::size_t width = masks.size();
  for (std::size_t leaf = 0; leaf < num_leaves; ++leaf) {
    const float* values = vectors + leaf * width;
    float* out = scaled + leaf * width;
    for (std::size_t field = 0; field < width; ++field) {
      float logarithm = log2_of_one_more(values[field]);
      std::uint32_t plain, taken;
      std::memcpy(&plain, &values[field], sizeof(plain));
      std::memcpy(&taken, &logarithm, sizeof(taken));
      taken = (taken & mask[field]) | (plain & ~mask[field]);
      std::memcpy(&out[field], &taken, sizeof(taken));
    }
  }
}

}  // namespace cdmpp
