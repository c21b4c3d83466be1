// Steps that change operations (cache reads and writes, factored reductions, inlining), applied to
// the stage list of a task.
//
// Candidates of one task share few sequences of such steps, so the lists are kept in a tree, one
// node per sequence; every further candidate only walks down.
#pragma once

#include <map>
#include <optional>
#include <unordered_map>

#include "graph.h"

namespace cdmpp {

// A read of a stage's result by a computed stage.
struct Consumer {
  int stage;
  const Read* read;
};

// The stages once inlined ones are part of those that use them.
struct Flattened {
  std::vector<SpecPtr> specs;
  std::vector<std::vector<Consumer>> consumers;  // [stage]
};

struct RewriteNode {
  std::vector<SpecPtr> specs;
  std::vector<char> inlined;
  std::map<std::vector<Int>, std::unique_ptr<RewriteNode>> next;
  std::unique_ptr<const Flattened> flattened;
};

inline std::vector<Index> axis_indices(std::size_t count) {
  std::vector<Index> indices;
  for (std::size_t n = 0; n < count; ++n) indices.push_back(axis_index(static_cast<Int>(n)));
  return indices;
}

inline SpecPtr edited(const SpecPtr& spec, const std::vector<Read>& reads) {
  Spec copy = *spec;
  copy.reads = reads;
  return std::make_shared<const Spec>(std::move(copy));
}

// Renumber producers when a stage is inserted before stage number `first`.
inline SpecPtr shifted(const SpecPtr& spec, int first) {
  std::vector<Read> reads = spec->reads;
  bool any = false;
  for (Read& read : reads) {
    if (read.stage >= first) ++read.stage, any = true;
  }
  return any ? edited(spec, reads) : spec;
}

// A stage that copies stage `number` element by element.
inline Spec copy_of(const Spec& source, int number, int scope) {
  Spec copy;
  copy.origin = source.origin;
  copy.element_bytes = source.element_bytes;
  copy.scope = scope;
  copy.num_spatial = static_cast<int>(source.shape.size());
  copy.shape = copy.extents = source.shape;
  auto identity = std::make_shared<const Indices>(axis_indices(source.shape.size()));
  copy.reads = {{number, std::move(identity)}};
  return copy;
}

inline void insert_stage(RewriteNode& node, int number, SpecPtr spec) {
  node.specs.insert(node.specs.begin() + number, std::move(spec));
  node.inlined.insert(node.inlined.begin() + number, 0);
}

inline void cache_read(RewriteNode& node, int number, int scope, const std::vector<Int>& readers) {
  SpecPtr copy = std::make_shared<const Spec>(copy_of(*node.specs[number], number, scope));
  for (SpecPtr& spec : node.specs) spec = shifted(spec, number + 1);
  for (Int reader : readers) {
    SpecPtr& spec = node.specs[static_cast<std::size_t>(reader)];
    std::vector<Read> reads = spec->reads;
    for (Read& read : reads) {
      if (read.stage == number) read.stage = number + 1;
    }
    spec = edited(spec, reads);
  }
  insert_stage(node, number + 1, std::move(copy));
}

inline void cache_write(RewriteNode& node, int number, int scope) {
  Spec cached = *node.specs[number];
  Spec target = copy_of(cached, number, cached.scope);
  target.is_output = cached.is_output;
  cached.scope = scope;
  cached.is_output = false;
  for (SpecPtr& spec : node.specs) spec = shifted(spec, number);
  node.specs[number] = std::make_shared<const Spec>(std::move(target));
  insert_stage(node, number, shifted(std::make_shared<const Spec>(std::move(cached)), number));
}

// What a factored reduction is split into: the reduction axes that the split stems from, the
// extents of the split's parts, which part becomes a spatial axis, and where.
struct Factoring {
  std::vector<Int> touched;
  std::vector<Int> parts;
  Int factor;
  Int position;
};

// The factored stage keeps the reduction axes that the split does not touch, then the other parts
// (schedule_dataflow_rewrite.cc); the final stage reduces over the factor alone.
inline void factor_reduction(RewriteNode& node, int number, const Factoring& factoring) {
  const Spec& spec = *node.specs[number];
  Int num_axes = static_cast<Int>(spec.extents.size());
  Int position = factoring.position >= 0 ? factoring.position
                                         : spec.num_spatial + 1 + factoring.position;
  if (position < 0 || position > spec.num_spatial) throw std::out_of_range("the new axis");
  Spec factored = spec;
  factored.is_output = false;
  factored.num_spatial = spec.num_spatial + 1;
  factored.shape.assign(spec.extents.begin(), spec.extents.begin() + spec.num_spatial);
  Int factor_extent = factoring.parts[static_cast<std::size_t>(factoring.factor)];
  factored.shape.insert(factored.shape.begin() + position, factor_extent);
  factored.extents = factored.shape;

  // The old axes in terms of the new ones: the split undone, then the fusion.
  std::vector<Index> axes(spec.extents.size());
  for (Int axis = 0; axis < num_axes; ++axis) {
    auto at = static_cast<std::size_t>(axis);
    if (axis < spec.num_spatial) {
      axes[at] = axis_index(axis + (axis >= position));
    } else if (std::count(factoring.touched.begin(), factoring.touched.end(), axis) == 0) {
      axes[at] = axis_index(static_cast<Int>(factored.extents.size()));
      factored.extents.push_back(spec.extents[at]);
    }
  }
  std::vector<Index> part_axes;
  for (std::size_t part = 0; part < factoring.parts.size(); ++part) {
    if (static_cast<Int>(part) == factoring.factor) {
      part_axes.push_back(axis_index(position));
    } else {
      part_axes.push_back(axis_index(static_cast<Int>(factored.extents.size())));
      factored.extents.push_back(factoring.parts[part]);
    }
  }
  Index fused;
  Int stride = 1;
  for (std::size_t part = factoring.parts.size(); part-- > 0;) {
    fused = add(fused, scaled(part_axes[part], stride));
    stride *= factoring.parts[part];
  }
  for (std::size_t n = factoring.touched.size(); n-- > 0;) {
    auto axis = static_cast<std::size_t>(factoring.touched[n]);
    axes[axis] = n == 0 ? fused : remainder(fused, spec.extents[axis]);
    fused = divided(fused, spec.extents[axis]);
  }
  for (Read& read : factored.reads) {
    Indices indices;
    for (const Index& index : *read.indices) indices.push_back(substituted(index, axes));
    read.indices = std::make_shared<const Indices>(std::move(indices));
  }

  Spec final = spec;
  final.extents.resize(static_cast<std::size_t>(spec.num_spatial));
  final.extents.push_back(factor_extent);
  final.ops = {};
  Indices indices = axis_indices(static_cast<std::size_t>(spec.num_spatial));
  indices.insert(indices.begin() + position, axis_index(spec.num_spatial));
  final.reads = {{number, std::make_shared<const Indices>(std::move(indices))}};

  for (SpecPtr& other : node.specs) other = shifted(other, number);
  node.specs[number] = std::make_shared<const Spec>(std::move(final));
  insert_stage(node, number, shifted(std::make_shared<const Spec>(std::move(factored)), number));
}

inline bool same_read(const Read& a, const Read& b) {
  return a.stage == b.stage &&
         (a.indices == b.indices ||
          std::equal(a.indices->begin(), a.indices->end(), b.indices->begin(), b.indices->end(),
                     [](const Index& s, const Index& t) { return compare(s, t) == 0; }));
}

inline void add_ops(OpCounts& to, const OpCounts& ops) {
  for (std::size_t n = 0; n < ops.size(); ++n) to[n] += ops[n];
}

// Replace reads of inlined stages by what those read; producers come first in the list.
inline Flattened flatten(const RewriteNode& node) {
  Flattened flat;
  for (const SpecPtr& original : node.specs) {
    Spec spec = *original;
    spec.reads.clear();
    auto read_once = [&spec](const Read& read) {
      auto same = [&read](const Read& other) { return same_read(read, other); };
      if (std::none_of(spec.reads.begin(), spec.reads.end(), same)) spec.reads.push_back(read);
    };
    for (const Read& read : original->reads) {
      if (!node.inlined[static_cast<std::size_t>(read.stage)]) {
        read_once(read);
        continue;
      }
      const Spec& producer = *flat.specs[static_cast<std::size_t>(read.stage)];
      add_ops(spec.ops, producer.ops);
      spec.compute_bytes = std::max(spec.compute_bytes, producer.compute_bytes);
      for (const Read& inner : producer.reads) {
        Indices indices;
        for (const Index& index : *inner.indices) {
          indices.push_back(substituted(index, *read.indices));
        }
        read_once({inner.stage, std::make_shared<const Indices>(std::move(indices))});
      }
    }
    flat.specs.push_back(std::make_shared<const Spec>(std::move(spec)));
  }
  flat.consumers.resize(flat.specs.size());
  for (std::size_t stage = 0; stage < flat.specs.size(); ++stage) {
    if (node.inlined[stage]) continue;
    for (const Read& read : flat.specs[stage]->reads) {
      flat.consumers[static_cast<std::size_t>(read.stage)].push_back(
          {static_cast<int>(stage), &read});
    }
  }
  return flat;
}

}  // namespace cdmpp
