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

constexpr std::size_t kMaxReads = 1024;  // of one operation, inlined ones included

// A read of a stage's first result by a computed stage; TVM computes as much as is read of that.
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

// A copy of a stage with every read changed by `edit`; the stage itself if that changes nothing.
template <class Edit>
SpecPtr edited(const SpecPtr& spec, const Edit& edit) {
  bool any = false;
  std::vector<Read> reads = spec->reads;
  for (Read& read : reads) any = edit(read) || any;
  if (!any) return spec;
  Spec copy = *spec;
  copy.reads = std::move(reads);
  for (SpecPtr& output : copy.outputs) output = edited(output, edit);
  return std::make_shared<const Spec>(std::move(copy));
}

// Renumber producers when a stage is inserted before stage number `first`.
inline SpecPtr shifted(const SpecPtr& spec, int first) {
  return edited(spec, [first](Read& read) {
    if (read.stage < first) return false;
    ++read.stage;
    return true;
  });
}

inline bool same_read(const Read& a, const Read& b) {
  return a.stage == b.stage && a.output == b.output &&
         (a.indices == b.indices ||
          std::equal(a.indices->begin(), a.indices->end(), b.indices->begin(), b.indices->end(),
                     [](const Index& s, const Index& t) { return compare(s, t) == 0; }));
}

inline void read_once(std::vector<Read>& reads, const Read& read) {
  auto same = [&read](const Read& other) { return same_read(read, other); };
  if (std::any_of(reads.begin(), reads.end(), same)) return;
  if (reads.size() == kMaxReads) {
    throw std::length_error("an operation with more than " + std::to_string(kMaxReads) + " reads");
  }
  reads.push_back(read);
}

// The reads of a stage with several results are those of all of them.
inline void join_reads(Spec& spec) {
  if (spec.outputs.empty()) return;
  spec.reads.clear();
  for (const SpecPtr& output : spec.outputs) {
    for (const Read& read : output->reads) read_once(spec.reads, read);
  }
}

// A stage that copies stage `number` element by element.
inline Spec copy_of(const Spec& source, int number, int scope, int output = 0) {
  Spec copy;
  copy.origin = source.origin;
  copy.element_bytes = source.element_bytes;
  copy.scope = scope;
  copy.num_spatial = static_cast<int>(source.shape.size());
  copy.shape = copy.extents = source.shape;
  auto identity = std::make_shared<const Indices>(axis_indices(source.shape.size()));
  copy.reads = {{number, output, std::move(identity)}};
  for (std::size_t n = 0; n < source.outputs.size(); ++n) {
    copy.outputs.push_back(std::make_shared<const Spec>(
        copy_of(*source.outputs[n], number, scope, static_cast<int>(n))));
  }
  join_reads(copy);
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
    spec = edited(spec, [number](Read& read) {
      if (read.stage != number) return false;
      ++read.stage;
      read.layout = kGiven;
      return true;
    });
  }
  insert_stage(node, number + 1, std::move(copy));
}

// Let `target` be in the caller's memory where `source` was.
inline void pass_returned(Spec& source, Spec& target) {
  target.is_returned = std::exchange(source.is_returned, false);
  for (std::size_t n = 0; n < source.outputs.size(); ++n) {
    Spec from = *source.outputs[n], to = *target.outputs[n];
    pass_returned(from, to);
    source.outputs[n] = std::make_shared<const Spec>(std::move(from));
    target.outputs[n] = std::make_shared<const Spec>(std::move(to));
  }
}

inline void cache_write(RewriteNode& node, int number, int scope) {
  Spec cached = *node.specs[number];
  Spec target = copy_of(cached, number, cached.scope);
  target.is_output = cached.is_output;
  pass_returned(cached, target);
  cached.scope = scope;
  cached.is_output = false;
  for (SpecPtr& spec : node.specs) spec = shifted(spec, number);
  node.specs[number] = std::make_shared<const Spec>(std::move(target));
  insert_stage(node, number, shifted(std::make_shared<const Spec>(std::move(cached)), number));
}

inline Choice substituted(Choice choice, const Indices& axes) {
  for (Condition& condition : choice.conditions) {
    condition.index = substituted(condition.index, axes);
  }
  return choice;
}

// What a factored reduction is split into: the reduction axes that the split stems from, the
// extents of the split's parts, which part becomes a spatial axis, and where.
struct Factoring {
  std::vector<Int> touched;
  std::vector<Int> parts;
  Int factor;
  Int position;
};

// Put a factored stage in terms of its new axes.
inline void rename_axes(Spec& spec, const std::vector<Index>& axes) {
  for (Choice& choice : spec.choices) choice = substituted(choice, axes);
  for (Read& read : spec.reads) {
    Indices indices;
    for (const Index& index : *read.indices) indices.push_back(substituted(index, axes));
    read.indices = std::make_shared<const Indices>(std::move(indices));
    read.layout = kGiven;  // TVM forgets about free layouts here
  }
  spec.is_returned = false;
  for (SpecPtr& output : spec.outputs) {
    Spec renamed = *output;
    renamed.shape = spec.shape;
    renamed.extents = spec.extents;
    renamed.num_spatial = spec.num_spatial;
    rename_axes(renamed, axes);
    output = std::make_shared<const Spec>(std::move(renamed));
  }
}

// Make a stage add up the parts that stage `number` has left.
inline void add_up(Spec& spec, int number, const std::shared_ptr<const Indices>& indices) {
  spec.ops = {};
  spec.choices.clear();
  spec.reads = {{number, 0, indices}};
  for (SpecPtr& output : spec.outputs) {
    Spec sum = *output;
    sum.extents = spec.extents;
    sum.ops = {};
    sum.choices.clear();
    sum.reads.clear();
    for (Int source : sum.sources) sum.reads.push_back({number, static_cast<int>(source), indices});
    output = std::make_shared<const Spec>(std::move(sum));
  }
  join_reads(spec);
}

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
  rename_axes(factored, axes);

  Spec final = spec;
  final.extents.resize(static_cast<std::size_t>(spec.num_spatial));
  final.extents.push_back(factor_extent);
  Indices indices = axis_indices(static_cast<std::size_t>(spec.num_spatial));
  indices.insert(indices.begin() + position, axis_index(spec.num_spatial));
  add_up(final, number, std::make_shared<const Indices>(std::move(indices)));

  for (SpecPtr& other : node.specs) other = shifted(other, number);
  node.specs[number] = std::make_shared<const Spec>(std::move(final));
  insert_stage(node, number, shifted(std::make_shared<const Spec>(std::move(factored)), number));
}

inline void add_ops(OpCounts& to, const OpCounts& ops) {
  for (std::size_t n = 0; n < ops.size(); ++n) to[n] += ops[n];
}

// Replace the reads of inlined stages by what those read.
inline SpecPtr flattened(const SpecPtr& original, const RewriteNode& node,
                         const std::vector<SpecPtr>& producers) {
  Spec spec = *original;
  spec.reads.clear();
  for (std::size_t n = 0; n < original->reads.size(); ++n) {
    const Read& read = original->reads[n];
    auto at = static_cast<std::size_t>(read.stage);
    if (!node.inlined[at]) {
      read_once(spec.reads, read);
      continue;
    }
    const Spec& producer = producers[at]->output(static_cast<std::size_t>(read.output));
    add_ops(spec.ops, producer.ops);
    spec.float_bytes = std::max(spec.float_bytes, producer.float_bytes);
    spec.int_bytes = std::max(spec.int_bytes, producer.int_bytes);
    std::size_t first = spec.choices.size();
    for (const Choice& choice : producer.choices) {
      spec.choices.push_back(substituted(choice, *read.indices));
    }
    if (spec.guard >= 0 && spec.guard == producer.guard &&
        original->guarded_read == static_cast<Int>(n)) {
      // The conditions of the two become one.
      --spec.ops[kSelect];
      ++spec.ops[kBool];
      Choice& outer = spec.choices.front();
      Choice& inner = spec.choices[first];
      outer.num_parts += inner.num_parts;
      outer.conditions.insert(outer.conditions.end(), inner.conditions.begin(),
                              inner.conditions.end());
      spec.choices.erase(spec.choices.begin() + static_cast<Int>(first));
    }
    for (const Read& inner : producer.reads) {
      Indices indices;
      for (const Index& index : *inner.indices) {
        indices.push_back(substituted(index, *read.indices));
      }
      read_once(spec.reads, {inner.stage, inner.output,
                             std::make_shared<const Indices>(std::move(indices))});
    }
  }
  for (SpecPtr& output : spec.outputs) output = flattened(output, node, producers);
  join_reads(spec);
  return std::make_shared<const Spec>(std::move(spec));
}

inline Flattened flatten(const RewriteNode& node) {
  Flattened flat;
  for (const SpecPtr& original : node.specs) {  // producers come first
    flat.specs.push_back(flattened(original, node, flat.specs));
  }
  flat.consumers.resize(flat.specs.size());
  for (std::size_t stage = 0; stage < flat.specs.size(); ++stage) {
    if (node.inlined[stage]) continue;
    for (const Read& read : flat.specs[stage]->reads) {
      if (read.output > 0) continue;
      flat.consumers[static_cast<std::size_t>(read.stage)].push_back(
          {static_cast<int>(stage), &read});
    }
  }
  return flat;
}

}  // namespace cdmpp
