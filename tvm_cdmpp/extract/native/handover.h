// Writes the candidates of a call as the lines of an Ansor log, through TVM's C interface.
//
// From Python, taking one state out of TVM's array and wrapping it for the log costs as much as
// writing it; the same calls from here cost next to nothing. Only functions and type codes that did
// not change between TVM 0.12 and 0.19 are used (include/tvm/runtime/c_runtime_api.h).
#pragma once

#include <cstdint>
#include <vector>

namespace cdmpp {

union TVMValue {
  std::int64_t v_int64;
  double v_float64;
  void* v_handle;
  const char* v_str;
};

enum TVMTypeCode : int { kInt = 0, kObject = 8, kString = 11 };

// Addresses of what is called: two C functions, and handles of TVM's own packed functions.
struct TVMFunctions {
  int (*call)(void* function, TVMValue* arguments, int* codes, int count, TVMValue* result,
              int* result_code);
  int (*free)(void* object);
  void* array_item;     // runtime.ArrayGetItem
  void* array;          // runtime.Array
  void* measure_input;  // auto_scheduler.MeasureInput
  void* save_records;   // auto_scheduler.SaveRecords
};

class HandOver {
 public:
  explicit HandOver(const TVMFunctions& tvm) : tvm_(tvm) {}
  HandOver(const HandOver&) = delete;
  HandOver& operator=(const HandOver&) = delete;
  ~HandOver() {
    for (void* object : owned_) tvm_.free(object);
  }

  // Append a line per state to a file, each with the same result; false if a call failed, whose
  // error TVM keeps.
  bool run(void* task, void* states, std::int64_t count, void* result, const char* path) {
    std::vector<TVMValue> inputs, results(static_cast<std::size_t>(count), handle(result));
    for (std::int64_t n = 0; n < count; ++n) {
      TVMValue at;
      at.v_int64 = n;
      void* state = call(tvm_.array_item, {handle(states), at}, {kObject, kInt});
      void* input =
          state ? call(tvm_.measure_input, {handle(task), handle(state)}, {kObject, kObject})
                : nullptr;
      if (!input) return false;
      inputs.push_back(handle(input));
    }
    void* all = make_array(inputs);
    void* placeholders = make_array(results);
    TVMValue file;
    file.v_str = path;
    if (!all || !placeholders) return false;
    call(tvm_.save_records, {file, handle(all), handle(placeholders)}, {kString, kObject, kObject});
    return !failed_;
  }

 private:
  static TVMValue handle(void* object) {
    TVMValue value;
    value.v_handle = object;
    return value;
  }

  void* make_array(std::vector<TVMValue>& items) {
    return call(tvm_.array, items, std::vector<int>(items.size(), kObject));
  }

  // Call a packed function; return the object it gives, null if none or if it failed.
  void* call(void* function, std::vector<TVMValue> arguments, std::vector<int> codes) {
    TVMValue result{};
    int code = kInt;
    failed_ = tvm_.call(function, arguments.data(), codes.data(),
                        static_cast<int>(arguments.size()), &result, &code) != 0;
    if (failed_ || code != kObject) return nullptr;
    owned_.push_back(result.v_handle);
    return result.v_handle;
  }

  TVMFunctions tvm_;
  std::vector<void*> owned_;
  bool failed_ = false;
};

}  // namespace cdmpp
