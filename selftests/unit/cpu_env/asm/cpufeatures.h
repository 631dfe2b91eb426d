/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's own, of headers that are installed; and names that compat.h has for older ones. */
#pragma once
#include CPUFEATURES_H
#include "compat_features.h"
