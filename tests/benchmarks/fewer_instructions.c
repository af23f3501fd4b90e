/* Preloaded into a process on Linux x86-64, it answers CPUID with fewer instructions than the processor has, at its full
 * speed: $INSTRUCTIONS is 1 without AMX, 2 also without AVX512 and AVX-VNNI, 3 also without AVX2 and FMA, 4 also without AVX.
 * The kernel must be able to trap CPUID (flag cpuid_fault in /proc/cpuinfo). */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012
#define BIT(n) (1u << (n))
static int level;

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (memcmp((void *)r[REG_RIP], "\x0f\xa2", 2)) { /* not CPUID: a real crash */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    unsigned leaf = r[REG_RAX], sub = r[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_CPUID, 1UL);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(sub));
    syscall(SYS_arch_prctl, ARCH_CPUID, 0UL);
    if (leaf == 7 && sub == 0) {
        d &= ~(BIT(22) | BIT(24) | BIT(25)); /* AMX: bf16, tile, int8 */
        if (level >= 2) {
            b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX512 F to VL */
            c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* its VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
            d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23)); /* its 4VNNIW, 4FMAPS, VP2INTERSECT, FP16 */
        }
        if (level >= 3) {
            b &= ~BIT(5); /* AVX2 */
            c &= ~(BIT(8) | BIT(9) | BIT(10)); /* GFNI, VAES, VPCLMULQDQ */
        }
    } else if (leaf == 7 && sub == 1) {
        a &= ~BIT(21); /* AMX-FP16 */
        if (level >= 2) a &= ~(BIT(4) | BIT(5) | BIT(23)), d &= ~(BIT(4) | BIT(5) | BIT(10)); /* AVX-VNNI, AVX512-BF16, … */
    } else if (leaf == 1) {
        if (level >= 3) c &= ~(BIT(12) | BIT(29)); /* FMA, F16C */
        if (level >= 4) c &= ~BIT(28); /* AVX */
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d, r[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    const char *wanted = getenv("INSTRUCTIONS");
    level = wanted ? atoi(wanted) : 0;
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    if (level && syscall(SYS_arch_prctl, ARCH_CPUID, 0UL)) _exit(70);
}
