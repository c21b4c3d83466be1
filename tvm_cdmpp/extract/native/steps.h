// Transform steps of one Ansor log line, read without building a document.
//
// A line is {"i": [[task...], [[], [step, ...]]], "r": ..., "v": ...}; step kinds and their fields
// are those of the log format v0.2 to v0.6 (TVM, transform_step.cc).
#pragma once

#include <charconv>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "index.h"

namespace cdmpp {

// What is wrong with one record; the others go on.
struct RecordError {
  std::string message;
};

// Text of a record for a message.
inline std::string quoted(std::string_view text) {
  constexpr std::size_t kLongest = 40;
  return "'" + std::string(text.substr(0, kLongest)) + (text.size() > kLongest ? "...'" : "'");
}

enum class StepKind { AN, FU, PR, RE, SP, FSP, FFSP, SA, CA, CI, CR, CHR, CHW, RF };

constexpr std::pair<std::string_view, StepKind> kStepKinds[] = {
    {"AN", StepKind::AN},     {"FU", StepKind::FU},   {"PR", StepKind::PR},
    {"RE", StepKind::RE},     {"SP", StepKind::SP},   {"FSP", StepKind::FSP},
    {"FFSP", StepKind::FFSP}, {"SA", StepKind::SA},   {"CA", StepKind::CA},
    {"CI", StepKind::CI},     {"CR", StepKind::CR},   {"CHR", StepKind::CHR},
    {"CHW", StepKind::CHW},   {"RF", StepKind::RF},
};

// One step. What `a`, `b`, `c`, `list` and `text` mean depends on the kind; see `read_fields`.
struct Step {
  StepKind kind;
  Int stage;
  Int a, b, c;
  std::vector<Int> list;
  std::string_view text;
};

// Reads the JSON that TVM writes.
class JsonReader {
 public:
  explicit JsonReader(std::string_view line) : line_(line) {}

  bool take(char expected) {
    skip_space();
    if (at_ == line_.size() || line_[at_] != expected) return false;
    ++at_;
    return true;
  }

  void expect(char expected) {
    if (!take(expected)) {
      fail(std::string("expected '") + expected + "'");
    }
  }

  Int integer() {
    skip_space();
    Int value = 0;
    const char* end = line_.data() + line_.size();
    auto [stop, error] = std::from_chars(line_.data() + at_, end, value);
    if (error != std::errc()) fail("expected an integer");
    if (stop != end && (*stop == '.' || *stop == 'e' || *stop == 'E')) fail("expected an integer");
    at_ = static_cast<std::size_t>(stop - line_.data());
    return value;
  }

  // A string, as written: escapes stay.
  std::string_view text() {
    expect('"');
    std::size_t first = at_;
    for (; at_ < line_.size(); ++at_) {
      if (line_[at_] == '"') return line_.substr(first, at_++ - first);
      if (line_[at_] == '\\') ++at_;
    }
    fail("a string without an end");
  }

  void integers(std::vector<Int>& values) {
    values.clear();
    expect('[');
    if (take(']')) return;
    do {
      values.push_back(integer());
    } while (take(','));
    expect(']');
  }

  void skip_value() {
    int depth = 0;
    do {
      skip_space();
      if (at_ == line_.size()) fail("the line ends too early");
      char c = line_[at_];
      if (c == '"') {
        text();
      } else if (c == '[' || c == '{') {
        ++depth, ++at_;
      } else if (c == ']' || c == '}') {
        --depth, ++at_;
      } else if (c == ',' || c == ':') {
        ++at_;
      } else {
        std::size_t end = line_.find_first_of(",:]} \t", at_);
        at_ = end == std::string_view::npos ? line_.size() : end;
      }
      if (depth < 0) fail("expected a value");
    } while (depth > 0);
  }

  [[noreturn]] void fail(const std::string& what) const {
    std::size_t first = at_ > 20 ? at_ - 20 : 0;
    throw RecordError{"A record must be a line of an Ansor log, {\"i\": [[task], [[], [steps]]], "
                      "...}; " + what + " at character " + std::to_string(at_) + ", near '" +
                      std::string(line_.substr(first, 40)) + "'."};
  }

 private:
  void skip_space() {
    while (at_ < line_.size() && (line_[at_] == ' ' || line_[at_] == '\t' || line_[at_] == '\r')) {
      ++at_;
    }
  }

  std::string_view line_;
  std::size_t at_ = 0;
};

inline void read_fields(JsonReader& json, Step& step) {
  auto next = [&json] {
    json.expect(',');
    return json.integer();
  };
  auto next_list = [&json, &step] {
    json.expect(',');
    json.integers(step.list);
  };
  step.stage = next();
  switch (step.kind) {
    case StepKind::AN:  // iterator, annotation
    case StepKind::CA:  // target stage, target iterator
    case StepKind::RF:  // iterator, position of the new axis
      step.a = next(), step.b = next();
      break;
    case StepKind::FSP:  // iterator, split step to follow, parts
      step.a = next(), step.b = next(), step.c = next();
      break;
    case StepKind::FU:  // iterators
    case StepKind::RE:
      next_list();
      break;
    case StepKind::SP:  // iterator, extent, factors, whether they are the inner parts'
      step.a = next();
      json.expect(',');
      json.skip_value();  // may be stale; extents are inferred
      next_list();
      step.b = next();
      break;
    case StepKind::FFSP:  // iterator, split steps to follow, level, whether it is the inner part's
      step.a = next();
      next_list();
      step.b = next(), step.c = next();
      break;
    case StepKind::SA:  // iterator, factor, offset
      step.a = next(), step.b = next(), step.c = next();
      break;
    case StepKind::PR:  // iterator, pragma
      step.a = next();
      json.expect(',');
      step.text = json.text();
      break;
    case StepKind::CHR:  // scope, readers
      json.expect(',');
      step.text = json.text();
      next_list();
      break;
    case StepKind::CHW:  // scope
      json.expect(',');
      step.text = json.text();
      break;
    case StepKind::CI:
    case StepKind::CR:
      break;
  }
}

inline void read_step(JsonReader& json, Step& step, std::size_t number) {
  json.expect('[');
  std::string_view name = json.text();
  const auto* known = std::find_if(std::begin(kStepKinds), std::end(kStepKinds),
                                   [name](const auto& kind) { return kind.first == name; });
  if (known == std::end(kStepKinds)) {
    std::string names;
    for (const auto& kind : kStepKinds) names += (names.empty() ? "" : ", ") + std::string(kind.first);
    throw RecordError{"Transform step " + std::to_string(number) + " is of unknown kind " +
                      quoted(name) + "; expected one of " + names + "."};
  }
  step.kind = known->second;
  read_fields(json, step);
  json.expect(']');
}

// Read the steps of a line into `steps`, whose elements are used again; return how many there are.
inline std::size_t read_steps(std::string_view line, std::vector<Step>& steps) {
  JsonReader json(line);
  json.expect('{');
  while (json.text() != "i") {
    json.expect(':');
    json.skip_value();
    json.expect(',');
  }
  json.expect(':');
  json.expect('[');
  json.skip_value();  // the task
  json.expect(',');
  json.expect('[');
  json.skip_value();  // always an empty list
  json.expect(',');
  json.expect('[');
  std::size_t count = 0;
  if (!json.take(']')) {
    do {
      if (count == steps.size()) steps.emplace_back();
      read_step(json, steps[count], count);
      ++count;
    } while (json.take(','));
    json.expect(']');
  }
  // The rest need not be looked at, but a line cut in half is no record.
  json.expect(']');
  json.expect(']');
  while (json.take(',')) {
    json.text();
    json.expect(':');
    json.skip_value();
  }
  json.expect('}');
  return count;
}

}  // namespace cdmpp
