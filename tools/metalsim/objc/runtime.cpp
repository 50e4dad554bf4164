// tools/metalsim/objc/runtime.cpp: selectors, classes, references, autorelease pools, and the look-up of methods.
#include "runtime.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "metalsim_objc.h"

namespace metalsim::objc {
namespace {

std::recursive_mutex& mutex() {
  static auto* it = new std::recursive_mutex;  // objects are released until the very end of the process
  return *it;
}
using Lock = std::lock_guard<std::recursive_mutex>;

struct Life {
  const char* class_name;
  bool dead = false;
};
std::unordered_map<const Object*, Life>& lives() {
  static auto* it = new std::unordered_map<const Object*, Life>;
  return *it;
}

/// Pools of a thread, innermost last.
std::vector<Object*>& pools() {
  thread_local std::vector<Object*> it;
  return it;
}

struct Pool : Object {
  Pool() : Object("NSAutoreleasePool") { pools().push_back(this); }
  ~Pool() override {
    if (pools().empty() || pools().back() != this) misuse("an autorelease pool went before one inside it");
    // What is released here may autorelease in its turn.
    for (std::size_t i = 0; i < objects.size(); ++i) release(objects[i]);
    pools().pop_back();
  }
  std::vector<Object*> objects;
};

const Method* find(const Class* isa, Selector name) {
  for (const Class* c : {isa, static_cast<const Class*>(&class_named("NSObject"))}) {
    const auto found = c->methods.find(name);
    if (found != c->methods.end()) return &found->second;
  }
  return nullptr;
}

std::uintptr_t nothing() { return 0; }

const bool kMethods = [] {
  method("NSObject", "retain", [](Object* self, Selector) { return retain(self); });
  method("NSObject", "release", [](Object* self, Selector) { release(self); });
  method("NSObject", "autorelease", [](Object* self, Selector) { return autorelease(self); });
  method("NSObject", "retainCount",
         [](Object* self, Selector) { return static_cast<unsigned long>(self->references.load()); });
  method("NSObject", "init", [](Object* self, Selector) { return self; });
  method("NSObject", "respondsToSelector:", [](Object* self, Selector, Selector asked) {
    return find(self->isa, asked) != nullptr;
  });
  method("+NSAutoreleasePool", "alloc", [](Object*, Selector) -> Object* { return new Pool; });
  method("NSAutoreleasePool", "drain", [](Object* self, Selector) { release(self); });
  std::atexit([] {
    const std::string left = alive_classes();
    if (!left.empty()) std::fprintf(stderr, "metalsim: never released: %s\n", left.c_str());
  });
  return true;
}();

}  // namespace

void misuse(const std::string& what) {
  std::fprintf(stderr, "metalsim: %s\n", what.c_str());
  std::abort();
}

Object::Object(const char* class_name) : isa(class_name ? &class_named(class_name) : nullptr) {
  if (!class_name) return;  // classes do not count
  const Lock lock(mutex());
  lives()[this] = {isa->name.c_str()};
}

Object::~Object() {
  const Lock lock(mutex());
  lives()[this].dead = true;
}

Class::Class(const std::string& class_name) : Object(nullptr), name(class_name) {
  if (name[0] != '+') isa = &class_named("+" + name);
}

Selector selector(const std::string& name) {
  static auto* names = new std::set<std::string>;
  const Lock lock(mutex());
  return names->insert(name).first->c_str();
}

Class& class_named(const std::string& name) {
  static auto* classes = new std::map<std::string, std::unique_ptr<Class>>;
  const Lock lock(mutex());
  auto& it = (*classes)[name];
  if (!it) it.reset(new Class(name));
  return *it;
}

void release(Object* object) {
  if (!object) return;
  const Lock lock(mutex());
  if (is_dead(object)) misuse(class_of(object) + " is released once too often");
  if (--object->references == 0) delete object;
}

Object* autorelease(Object* object) {
  if (pools().empty()) misuse("[" + object->isa->name + " autorelease] without a pool: it would never be released");
  static_cast<Pool*>(pools().back())->objects.push_back(object);
  return object;
}

bool is_dead(const Object* object) {
  const Lock lock(mutex());
  const auto found = lives().find(object);
  return found != lives().end() && found->second.dead;
}

std::string class_of(const Object* object) {
  const Lock lock(mutex());
  const auto found = lives().find(object);
  return found != lives().end() ? found->second.class_name : object->isa->name;
}

std::size_t alive_objects() {
  const Lock lock(mutex());
  std::size_t count = 0;
  for (const auto& entry : lives()) count += entry.second.dead ? 0 : 1;
  return count;
}

std::string alive_classes() {
  const Lock lock(mutex());
  std::map<std::string, int> counts;
  for (const auto& entry : lives()) {
    if (!entry.second.dead) ++counts[entry.second.class_name];
  }
  std::string out;
  for (const auto& [name, count] : counts) out += (out.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  return out;
}

}  // namespace metalsim::objc

using namespace metalsim::objc;

extern "C" {

Selector sel_registerName(const char* name) { return selector(name); }

Class* objc_lookUpClass(const char* name) {
  // METALSIM_MACOS=14: a system without the classes that came later.
  const char* system = std::getenv("METALSIM_MACOS");
  const bool is_new = std::string(name) == "MTLResidencySetDescriptor" || std::string(name).starts_with("MTL4");
  return system && std::atoi(system) < 15 && is_new ? nullptr : &class_named(name);
}
Class* objc_getClass(const char* name) { return objc_lookUpClass(name); }
void* objc_getProtocol(const char*) { return nullptr; }

Method metalsim_find_method(Object* receiver, Selector name) {
  if (!receiver) return reinterpret_cast<Method>(nothing);  // as Objective-C has it
  if (is_dead(receiver)) misuse("[" + class_of(receiver) + " " + name + "] after its last release");
  const Method* found = find(receiver->isa, name);
  if (!found) misuse("[" + receiver->isa->name + " " + name + "] is not implemented: add it to tools/metalsim/objc");
  return *found;
}
}
