// One parameter by the update rule. The host puts the rule (apply_rule, SLOTS) before this, and behind it the kernel, which has one
// argument for each slot.
DEVICE void update_element(Real* parameter, const Real* gradient, const Real* scalars, Real* const* slots, long long n) {
    const long long i = element();
    if (i >= n) return;
    Real slot_values[SLOTS + 1];
#pragma unroll
    for (int slot = 0; slot < SLOTS; ++slot) slot_values[slot] = slots[slot][i];
    parameter[i] = apply_rule(parameter[i], gradient[i], slot_values, 1, scalars);
#pragma unroll
    for (int slot = 0; slot < SLOTS; ++slot) slots[slot][i] = slot_values[slot];
}
