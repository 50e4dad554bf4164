// tools/metalsim/objc/runtime.h: classes, objects and their references, for those who implement Apple's classes here.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <string>

namespace metalsim::objc {

/// A selector is its name's one copy.
using Selector = const char*;
using Method = void (*)();

struct Class;

/// What a program holds as a pointer to NS::... or MTL::... Made with one reference, which belongs to who made it.
/// Its memory is never reused, so that a message to what has been released is noticed.
struct Object {
  explicit Object(const char* class_name);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  static void operator delete(void*) {}

  Class* isa;
  std::atomic<long> references{1};
};

struct Class : Object {
  explicit Class(const std::string& class_name);
  std::string name;  // "+X" is the class of the class X
  std::map<Selector, Method> methods;
};

Selector selector(const std::string& name);
/// Made at the first call.
Class& class_named(const std::string& name);

/// Adds a method: a function of the receiver, the selector, then the arguments.
template <typename Function>
void method(const char* class_name, const char* name, Function function) {
  class_named(class_name).methods[selector(name)] = reinterpret_cast<Method>(+function);
}

template <typename T>
T* retain(T* object) {
  if (object) ++object->references;
  return object;
}
void release(Object* object);
/// Gives the reference to the innermost pool of this thread.
Object* autorelease(Object* object);
/// Whether it has been released for good.
bool is_dead(const Object* object);
/// Its name, of the dead too.
std::string class_of(const Object* object);

/// A reference of ours.
template <typename T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(retain(object)) {}
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Ref& operator=(Ref other) {
    T* mine = object_;
    object_ = other.object_;
    other.object_ = mine;
    return *this;
  }
  ~Ref() { release(object_); }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

/// For what a Mac would crash on, or do wrong in silence: says why, and aborts.
[[noreturn]] void misuse(const std::string& what);

}  // namespace metalsim::objc
