/* SPDX-License-Identifier: GPL-2.0-only */
/* What the file under test takes from here, svm_env.h has. */
#include "svm_env.h"
