// A vector of bounded length without heap memory: candidates make many short ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace cdmpp {

template <class T, std::size_t N>
class Small {
 public:
  Small() = default;
  explicit Small(std::size_t count, T value = T()) { assign(count, value); }
  Small(const Small& other) : count_(other.count_) { std::copy(other.begin(), other.end(), items_); }
  Small& operator=(const Small& other) {
    count_ = other.count_;
    std::copy(other.begin(), other.end(), items_);
    return *this;
  }

  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  T& operator[](std::size_t at) { return items_[at]; }
  const T& operator[](std::size_t at) const { return items_[at]; }
  T* begin() { return items_; }
  T* end() { return items_ + count_; }
  const T* begin() const { return items_; }
  const T* end() const { return items_ + count_; }
  T& front() { return items_[0]; }
  const T& front() const { return items_[0]; }
  T& back() { return items_[count_ - 1]; }
  const T& back() const { return items_[count_ - 1]; }

  void clear() { count_ = 0; }
  void assign(std::size_t count, T value) {
    set_size(count);
    std::fill(begin(), end(), value);
  }
  template <class Iterator>
  void copy(Iterator first, Iterator last) {
    set_size(static_cast<std::size_t>(last - first));
    std::copy(first, last, items_);
  }
  void resize(std::size_t count) {
    std::size_t old = count_;
    set_size(count);
    if (count > old) std::fill(items_ + old, end(), T());
  }
  void push_back(const T& value) {
    set_size(count_ + 1);
    back() = value;
  }

 private:
  void set_size(std::size_t count) {
    if (count > N) {
      throw std::length_error("a list of " + std::to_string(count) + "; at most " +
                              std::to_string(N) + " are supported");
    }
    count_ = count;
  }

  T items_[N];
  std::size_t count_ = 0;
};

}  // namespace cdmpp
