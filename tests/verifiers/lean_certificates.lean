/- What `test_lean_olean.py` and `test_lean_certificate.py` read: statements in namespaces R…, submissions to them in
   P… (proofs) and C… (cheats). Every one compiles without an error. -/
namespace R0
theorem t1 (a b : Nat) (h : a ≤ b) : a < b + 1 := sorry
end R0
namespace R1
def dbl (n : Nat) : Nat := n + n
inductive Tree (α : Type u) where | leaf | node (l : Tree α) (a : α) (r : Tree α)
def Tree.size {α : Type u} : Tree α → Nat | .leaf => 0 | .node l _ r => l.size + 1 + r.size
structure Pt where
  x : Nat
  y : Nat := 3
theorem t2 (t : Tree Nat) (p : Pt) : dbl 2 = 4 ∧ t.size = t.size ∧ p.x = p.x := sorry
end R1
namespace R2
theorem t3.{w} (α : Type w) (p : Prop) (x y : α) : p ∨ ¬ p := sorry
end R2
namespace R3
theorem t4 : 1 = 2 := sorry
end R3
namespace R4
def isZero : Nat → Bool | 0 => true | _ => false
theorem t5 (n : Nat) (h : n = 0) : isZero n = true := sorry
end R4
namespace P0
theorem t1 (a b : Nat) (h : a ≤ b) : a < b + 1 := by omega
end P0
namespace P1
def dbl (n : Nat) : Nat := n + n
inductive Tree (α : Type u) where | leaf | node (l : Tree α) (a : α) (r : Tree α)
def Tree.size {α : Type u} : Tree α → Nat | .leaf => 0 | .node l _ r => l.size + 1 + r.size
structure Pt where
  x : Nat
  y : Nat := 3
theorem help : dbl 2 = 4 := by decide
theorem t2 (t : Tree Nat) (p : Pt) : dbl 2 = 4 ∧ t.size = t.size ∧ p.x = p.x := ⟨help, rfl, rfl⟩
end P1
namespace P2
theorem t3.{v} (α : Type v) (p : Prop) (x z : α) : p ∨ ¬ p := Classical.em p
end P2
namespace C3a
axiom cheat : False
theorem t4 : 1 = 2 := cheat.elim
end C3a
namespace C3b
theorem t4 : 1 = 2 := by sorry
end C3b
namespace C3c
theorem t4 : 1 = 1 := rfl
end C3c
namespace C3d
axiom t4 : 1 = 2
end C3d
namespace C3e
local instance : OfNat Nat 2 := ⟨1⟩
theorem t4 : 1 = 2 := rfl
end C3e
namespace C3f
set_option debug.skipKernelTC true in
theorem t4 : 1 = 2 := by decide +kernel
end C3f
namespace C3g
theorem t4 : 1 = 2 := by first | native_decide | sorry
end C3g
namespace C3h
theorem t4 (h : False) : 1 = 2 := h.elim
end C3h
namespace C3i
theorem other : 1 = 2 := C3a.t4
theorem t4 : 1 = 2 := other
end C3i
namespace P4
def isZero : Nat → Bool | 0 => true | _ => false
theorem t5 (n : Nat) (h : n = 0) : isZero n = true := by subst h; rfl
end P4
namespace C4b
def isZero : Nat → Bool | _ => true
theorem t5 (n : Nat) (h : n = 0) : isZero n = true := by subst h; rfl
end C4b
namespace C4c
axiom isZero : Nat → Bool
axiom ok : ∀ n, isZero n = true
theorem t5 (n : Nat) (h : n = 0) : isZero n = true := ok n
end C4c
namespace R5
mutual
inductive Even : Nat → Prop | zero : Even 0 | step : Odd n → Even (n + 1)
inductive Odd : Nat → Prop | step : Even n → Odd (n + 1)
end
inductive Rose where | node : List Rose → Rose
class Size (α : Type) where
  size : α → Nat
instance : Size Nat := ⟨fun n => n⟩
def gcd (a b : Nat) : Nat := if h : b = 0 then a else gcd b (a % b)
termination_by b
decreasing_by exact Nat.mod_lt _ (Nat.pos_of_ne_zero h)
local notation "⟪" x "⟫" => Size.size x
theorem t6 (r : Rose) (n : Nat) (h : Even n) : ⟪n⟫ = n ∧ gcd 4 6 = gcd 4 6 ∧ r = r ∧
    12345678901234567890123 = 12345678901234567890123 ∧ "a.b" ++ "" = "a.b" ∧ (match n with | 0 => 0 | m + 1 => m) ≤ n := sorry
end R5
namespace P5
mutual
inductive Even : Nat → Prop | zero : Even 0 | step : Odd n → Even (n + 1)
inductive Odd : Nat → Prop | step : Even n → Odd (n + 1)
end
inductive Rose where | node : List Rose → Rose
class Size (α : Type) where
  size : α → Nat
instance : Size Nat := ⟨fun n => n⟩
def gcd (a b : Nat) : Nat := if h : b = 0 then a else gcd b (a % b)
termination_by b
decreasing_by exact Nat.mod_lt _ (Nat.pos_of_ne_zero h)
local notation "⟪" x "⟫" => Size.size x
theorem t6 (r : Rose) (n : Nat) (h : Even n) : ⟪n⟫ = n ∧ gcd 4 6 = gcd 4 6 ∧ r = r ∧
    12345678901234567890123 = 12345678901234567890123 ∧ "a.b" ++ "" = "a.b" ∧ (match n with | 0 => 0 | m + 1 => m) ≤ n := by
  refine ⟨rfl, rfl, rfl, rfl, rfl, ?_⟩
  split <;> omega
end P5
namespace C3j
local macro_rules | `($_ = $_) => `(True)
theorem t4 : 1 = 2 := trivial
end C3j
namespace C3k
variable (h : False)
include h
theorem t4 : 1 = 2 := h.elim
end C3k
namespace C3l.Inner
theorem t4 : 1 = 2 := C3a.t4
end C3l.Inner
