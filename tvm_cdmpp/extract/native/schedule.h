// Applies the transform steps of one candidate: what happens to the loops of every stage.
#pragma once

#include "rewrites.h"
#include "steps.h"

namespace cdmpp {

constexpr Int kMaxExtent = Int{1} << 31;  // TVM counts iterations in 32 bits
constexpr std::size_t kMaxIterators = 512;  // of one stage; Ansor has about a hundred
constexpr int kMaxSources = 64;             // of one iterator; Ansor has about six

inline Int extent_product(Int a, Int b) {
  if (a >= kMaxExtent || b >= kMaxExtent || a * b >= kMaxExtent) {
    throw std::out_of_range("a loop of " + std::to_string(a) + " x " + std::to_string(b) +
                            " iterations");
  }
  return a * b;
}

// Split `parts` (outer to inner) off `whole`, or fuse `parts` into `whole`.
struct Relation {
  bool is_split;
  bool inner_to_outer;  // of a split: whether factors are those of the inner parts, else the outer
  int whole;
  Small<int, 32> parts;
  Small<Int, 32> factors;
  bool forgets_extents = false;  // of a fusion: whether TVM takes its parts to run once
};

// The loops of a stage while steps are applied. Iterators are numbered per stage, axes first.
struct Stage {
  std::vector<Relation> relations;
  std::vector<int> order;  // iterators that are loops, outermost first
  std::vector<char> is_reduce;
  std::vector<int> kind;
  // [iterator]: in how many ways it stems from an axis, which is how long the index of an axis gets:
  // taking loops apart that are split and fused in turns would take exponentially long.
  std::vector<int> num_sources;
  Stage* attached_to = nullptr;
  int attached_at = 0;  // iterator of that stage
  int unroll_at = -1;   // iterator that carries the unroll pragma
  Int unroll_limit = 0;
  int number = 0;
  bool has_moved = false;  // by a step; TVM's states then forget the extents of its iterators

  void start(const Spec& spec) {
    has_moved = false;
    relations.clear();
    order.clear();
    is_reduce.clear();
    kind.clear();
    num_sources.clear();
    for (int n = 0; n < static_cast<int>(spec.extents.size()); ++n) {
      order.push_back(add_iterator(n >= spec.num_spatial));
    }
  }

  int add_iterator(bool reduces, int sources = 1) {
    if (is_reduce.size() == kMaxIterators) {
      throw std::length_error("more than " + std::to_string(kMaxIterators) + " loops of a stage");
    }
    is_reduce.push_back(reduces);
    kind.push_back(kSerial);
    num_sources.push_back(sources);
    return static_cast<int>(is_reduce.size()) - 1;
  }

  int at(Int position) const {
    if (position < 0 || position >= static_cast<Int>(order.size())) {
      throw std::out_of_range("iterator " + std::to_string(position) + " of " +
                              std::to_string(order.size()));
    }
    return order[static_cast<std::size_t>(position)];
  }
};

// Hands out objects of one record and takes them back for the next, their memory kept.
template <class T>
class Pool {
 public:
  T* take() {
    if (used_ == items_.size()) items_.push_back(std::make_unique<T>());
    return items_[used_++].get();
  }
  void reset() { used_ = 0; }

 private:
  std::vector<std::unique_ptr<T>> items_;
  std::size_t used_ = 0;
};

class Schedule {
 public:
  explicit Schedule(std::vector<SpecPtr> graph) {
    root_.inlined.assign(graph.size(), 0);
    root_.specs = std::move(graph);
  }

  const std::vector<Stage*>& stages() const { return stages_; }
  const RewriteNode& node() const { return *node_; }

  const Flattened& flattened() {
    if (!node_->flattened) node_->flattened = std::make_unique<const Flattened>(flatten(*node_));
    return *node_->flattened;
  }

  // Apply all steps of a record; throws RecordError if they do not fit the task.
  void run(const std::vector<Step>& steps, std::size_t count) {
    if (num_kept_ > kMaxKept) root_.next.clear(), num_kept_ = 0;
    node_ = &root_;
    depth_ = 0;
    pool_.reset();
    stages_.clear();
    for (const SpecPtr& spec : root_.specs) stages_.push_back(fresh(*spec));
    for (std::size_t n = 0; n < count; ++n) {
      try {
        apply(steps, n);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& error) {
        throw RecordError{"Transform step " + std::to_string(n) + " (" + name_of(steps[n]) +
                          ", stage " + std::to_string(steps[n].stage) + ") does not fit the task: " +
                          error.what() + ". The record probably belongs to another workload."};
      }
    }
    for (std::size_t n = 0; n < stages_.size(); ++n) stages_[n]->number = static_cast<int>(n);
  }

 private:
  static constexpr std::size_t kMaxKept = std::size_t{1} << 17;  // operations in the tree
  static constexpr int kMaxRewrites = 256;  // of one record

  static std::string name_of(const Step& step) {
    for (const auto& [name, kind] : kStepKinds) {
      if (kind == step.kind) return std::string(name);
    }
    return {};
  }

  Stage* fresh(const Spec& spec) {
    Stage* stage = pool_.take();
    stage->start(spec);
    stage->attached_to = nullptr;
    stage->unroll_at = -1;
    return stage;
  }

  std::size_t checked(Int stage) const {
    if (stage < 0 || stage >= static_cast<Int>(stages_.size())) {
      throw std::out_of_range("stage " + std::to_string(stage) + " of " +
                              std::to_string(stages_.size()));
    }
    return static_cast<std::size_t>(stage);
  }

  void apply(const std::vector<Step>& steps, std::size_t n) {
    const Step& step = steps[n];
    Stage& stage = *stages_[checked(step.stage)];
    switch (step.kind) {
      case StepKind::SP:
        check_factors(step.list);
        split(stage, step.a, step.list, step.b != 0);
        break;
      case StepKind::FSP: {
        std::vector<Int> factors = split_at(steps, n, step.b);
        if (step.c < 1 || step.c > static_cast<Int>(factors.size()) + 1) {
          throw std::out_of_range(std::to_string(step.c) + " parts from a split with " +
                                  std::to_string(factors.size()) + " factors");
        }
        Int last = 1;
        for (auto at = static_cast<std::size_t>(step.c) - 1; at < factors.size(); ++at) {
          last = extent_product(last, factors[at]);
        }
        factors.resize(static_cast<std::size_t>(step.c) - 1);
        factors.push_back(last);
        split(stage, step.a, factors, true);
        break;
      }
      case StepKind::FFSP: {
        Int factor = 1;
        for (Int source : step.list) {
          const std::vector<Int>& factors = split_at(steps, n, source);
          if (step.b < 0 || step.b >= static_cast<Int>(factors.size())) {
            throw std::out_of_range("level " + std::to_string(step.b));
          }
          factor = extent_product(factor, factors[static_cast<std::size_t>(step.b)]);
        }
        split(stage, step.a, {factor}, step.c != 0);
        break;
      }
      case StepKind::FU:
        fuse(stage, step.list);
        break;
      case StepKind::RE:
        reorder(stage, step.list);
        break;
      case StepKind::AN:
        // One more asks for a tensor intrinsic, which TVM does not apply either.
        if (step.b < 0 || step.b >= kNumLoopKinds) {
          throw std::out_of_range("annotation " + std::to_string(step.b));
        }
        stage.kind[static_cast<std::size_t>(stage.at(step.a))] = static_cast<int>(step.b);
        break;
      case StepKind::PR:
        pragma(stage, step);
        break;
      case StepKind::CA: {
        Stage& target = *stages_[checked(step.a)];
        stage.attached_at = target.at(step.b);
        stage.attached_to = &target;
        stage.has_moved = true;
        break;
      }
      case StepKind::CR:
        stage.attached_to = nullptr;
        stage.has_moved = true;
        if (node_->inlined[checked(step.stage)]) {
          rewrite({static_cast<Int>(step.kind), step.stage},
                  [&](RewriteNode& node) { node.inlined[checked(step.stage)] = 0; });
        }
        break;
      case StepKind::CI: {
        const Spec& spec = *node_->specs[checked(step.stage)];
        if (spec.has_reduction() || spec.is_placeholder) {
          throw std::invalid_argument("a reduction or an input cannot be inlined");
        }
        if (spec.is_output) throw std::invalid_argument("an output cannot be inlined");
        stage.attached_to = nullptr;
        rewrite({static_cast<Int>(step.kind), step.stage},
                [&](RewriteNode& node) { node.inlined[checked(step.stage)] = 1; });
        break;
      }
      case StepKind::CHR: {
        if (step.list.size() > stages_.size()) throw std::length_error("more readers than stages");
        std::vector<Int> key{static_cast<Int>(step.kind), step.stage, scope_of(step.text)};
        for (Int reader : step.list) key.push_back(static_cast<Int>(checked(reader)));
        int number = static_cast<int>(step.stage);
        rewrite(key, [&](RewriteNode& node) {
          cache_read(node, number, scope_of(step.text), step.list);
        });
        insert(number + 1);
        break;
      }
      case StepKind::CHW: {
        int number = static_cast<int>(step.stage);
        rewrite({static_cast<Int>(step.kind), step.stage, scope_of(step.text)},
                [&](RewriteNode& node) { cache_write(node, number, scope_of(step.text)); });
        stage.start(*node_->specs[static_cast<std::size_t>(number) + 1]);
        insert(number);
        break;
      }
      case StepKind::RF:
        rfactor(stage, step);
        break;
      case StepKind::SA:  // pads a buffer; loops and accesses stay as they are
        break;
    }
  }

  static int scope_of(std::string_view name) {
    if (name == "global") return kGlobal;
    return name == "local" ? kLocal : kShared;
  }

  static void check_factors(const std::vector<Int>& factors) {
    for (Int factor : factors) {
      if (factor < 1 || factor >= kMaxExtent) {
        throw std::out_of_range("split factor " + std::to_string(factor));
      }
    }
  }

  static const std::vector<Int>& split_at(const std::vector<Step>& steps, std::size_t n,
                                          Int source) {
    if (source < 0 || source >= static_cast<Int>(n) ||
        steps[static_cast<std::size_t>(source)].kind != StepKind::SP) {
      throw std::invalid_argument("step " + std::to_string(source) + " is not an earlier split");
    }
    return steps[static_cast<std::size_t>(source)].list;
  }

  void split(Stage& stage, Int position, const std::vector<Int>& factors, bool inner_to_outer) {
    int whole = stage.at(position);
    bool reduces = stage.is_reduce[static_cast<std::size_t>(whole)] != 0;
    int sources = stage.num_sources[static_cast<std::size_t>(whole)];
    Relation relation{true, inner_to_outer, whole, {}, {}};
    relation.factors.copy(factors.begin(), factors.end());
    for (std::size_t n = 0; n <= factors.size(); ++n) {
      relation.parts.push_back(stage.add_iterator(reduces, sources));
    }
    auto at = stage.order.begin() + position;
    *at = relation.parts.front();
    stage.order.insert(at + 1, relation.parts.begin() + 1, relation.parts.end());
    move_attached(stage, whole, relation.parts.back());
    stage.relations.push_back(std::move(relation));
  }

  void fuse(Stage& stage, const std::vector<Int>& positions) {
    Relation relation{false, false, 0, {}, {}, stage.has_moved};
    bool reduces = false;
    int sources = 0;
    for (std::size_t n = 0; n < positions.size(); ++n) {
      if (positions[n] != positions[0] + static_cast<Int>(n)) {
        throw std::invalid_argument("the iterators to fuse are not adjacent");
      }
      relation.parts.push_back(stage.at(positions[n]));
      if (n + 1 < positions.size() && has_attached(stage, relation.parts.back())) {
        throw std::invalid_argument("a stage is attached between the iterators to fuse");
      }
      auto part = static_cast<std::size_t>(relation.parts.back());
      reduces = reduces || stage.is_reduce[part];
      sources += stage.num_sources[part];
    }
    if (sources > kMaxSources) {
      throw std::length_error("a loop fused from axes in more than " +
                              std::to_string(kMaxSources) + " ways");
    }
    relation.whole = stage.add_iterator(reduces, std::max(sources, 1));
    if (positions.empty()) {  // a loop that runs once
      stage.order.insert(stage.order.begin(), relation.whole);
    } else {
      auto at = stage.order.begin() + positions[0];
      *at = relation.whole;
      stage.order.erase(at + 1, at + static_cast<Int>(positions.size()));
    }
    for (int part : relation.parts) move_attached(stage, part, relation.whole);
    stage.relations.push_back(std::move(relation));
  }

  bool has_attached(const Stage& target, int iterator) const {
    return std::any_of(stages_.begin(), stages_.end(), [&](const Stage* stage) {
      return stage->attached_to == &target && stage->attached_at == iterator;
    });
  }

  void move_attached(const Stage& target, int from, int to) {
    for (Stage* stage : stages_) {
      if (stage->attached_to == &target && stage->attached_at == from) stage->attached_at = to;
    }
  }

  static void reorder(Stage& stage, const std::vector<Int>& positions) {
    std::vector<int> order;
    std::vector<char> seen(stage.order.size(), 0);
    for (Int position : positions) {
      order.push_back(stage.at(position));
      if (std::exchange(seen[static_cast<std::size_t>(position)], char{1})) break;
    }
    if (order.size() != stage.order.size() ||
        std::count(seen.begin(), seen.end(), 1) != static_cast<Int>(seen.size())) {
      throw std::invalid_argument("the new order is not a permutation of " +
                                  std::to_string(stage.order.size()) + " iterators");
    }
    stage.order = std::move(order);
  }

  static void pragma(Stage& stage, const Step& step) {
    constexpr std::string_view kUnroll = "auto_unroll_max_step$";
    if (step.text == "debug_skip_region") return;
    Int limit = 0;
    const char* end = step.text.data() + step.text.size();
    bool unrolls = step.text.substr(0, kUnroll.size()) == kUnroll;
    if (unrolls) {
      auto [stop, error] = std::from_chars(step.text.data() + kUnroll.size(), end, limit);
      unrolls = stop == end && error == std::errc() && limit >= 0;
    }
    if (!unrolls) throw std::invalid_argument("unknown pragma " + quoted(step.text));
    if (step.a < 0) stage.at(step.a);
    // TVM ignores the pragma on an iterator that does not exist (a stage without loops).
    if (step.a < static_cast<Int>(stage.order.size())) {
      stage.unroll_at = stage.at(step.a);
      stage.unroll_limit = limit;
    }
  }

  // Go down one rewrite, made by `edit` if it is new.
  template <class Edit>
  void rewrite(const std::vector<Int>& key, const Edit& edit) {
    if (++depth_ > kMaxRewrites) {
      throw std::length_error("more than " + std::to_string(kMaxRewrites) +
                              " steps that change operations");
    }
    auto next = node_->next.find(key);
    if (next == node_->next.end()) {
      auto made = std::make_unique<RewriteNode>();
      made->specs = node_->specs;
      made->inlined = node_->inlined;
      edit(*made);
      num_kept_ += made->specs.size();
      next = node_->next.emplace(key, std::move(made)).first;
    }
    node_ = next->second.get();
  }

  void insert(int number) {
    stages_.insert(stages_.begin() + number,
                   fresh(*node_->specs[static_cast<std::size_t>(number)]));
  }

  void rfactor(Stage& stage, const Step& step) {
    int factor = stage.at(step.a);
    auto split = std::find_if(stage.relations.rbegin(), stage.relations.rend(),
                              [factor](const Relation& relation) {
                                const auto& parts = relation.parts;
                                return relation.is_split &&
                                       std::count(parts.begin(), parts.end(), factor) > 0;
                              });
    if (split == stage.relations.rend()) {
      throw std::invalid_argument("a factored reduction needs a split before");
    }
    const Spec& spec = *node_->specs[checked(step.stage)];
    Small<int, 32> touched(1, split->whole);
    for (const Relation& relation : stage.relations) {
      if (!relation.is_split && relation.whole == split->whole) touched = relation.parts;
    }
    Factoring factoring{{}, {}, 0, step.b};
    Int extent = 1;
    for (int axis : touched) {
      if (axis < spec.num_spatial || axis >= static_cast<int>(spec.extents.size())) {
        throw std::invalid_argument("factoring a nested split is not supported");
      }
      factoring.touched.push_back(axis);
      extent = extent_product(extent, spec.extents[static_cast<std::size_t>(axis)]);
    }
    if (extent < 1) throw std::invalid_argument("there is nothing to reduce");
    // Factors are kept as they are, and what is left goes to the part without one.
    factoring.parts.assign(split->factors.begin(), split->factors.end());
    Int rest = extent;
    for (std::size_t n = 0; n < split->factors.size(); ++n) {
      rest = ceil_div(rest, split->inner_to_outer ? split->factors[split->factors.size() - 1 - n]
                                                  : split->factors[n]);
    }
    factoring.parts.insert(
        split->inner_to_outer ? factoring.parts.begin() : factoring.parts.end(), rest);
    std::accumulate(factoring.parts.begin(), factoring.parts.end(), Int{1}, extent_product);
    factoring.factor = std::find(split->parts.begin(), split->parts.end(), factor) -
                       split->parts.begin();

    std::vector<Int> key{static_cast<Int>(step.kind), step.stage, factoring.factor, step.b};
    key.insert(key.end(), factoring.touched.begin(), factoring.touched.end());
    key.push_back(-1);
    key.insert(key.end(), factoring.parts.begin(), factoring.parts.end());
    int number = static_cast<int>(step.stage);
    rewrite(key, [&](RewriteNode& node) { factor_reduction(node, number, factoring); });
    stage.start(*node_->specs[static_cast<std::size_t>(number) + 1]);
    insert(number);
  }

  RewriteNode root_;
  std::size_t num_kept_ = 0;
  int depth_ = 0;  // of `node_`
  RewriteNode* node_ = nullptr;
  Pool<Stage> pool_;
  std::vector<Stage*> stages_;
};

}  // namespace cdmpp
