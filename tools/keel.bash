# SPDX-License-Identifier: GPL-2.0-only
# bash completion for keel(1)
_keel()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=''
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "status load unload share exec stat snapshot selftest help --version" -- "$cur")
		return
	fi
	case ${COMP_WORDS[1]} in
	status) words="--json" ;;
	share) words="--off" ;;
	load)
		case $prev in
		--file) mapfile -t COMPREPLY < <(compgen -f -X '!*.ko*' -- "$cur"; compgen -d -- "$cur"); return ;;
		esac
		words="--file npt=0 ept=0 ept_ad=0 pml=0 apicv=0 posted=0 pmu=0 nx_large= l1d_flush= minor=232 mode=own mode=shared vmware_backdoor=1 dump_failed_entry=1"
		;;
	exec)
		# The command to be run has a completion of its own.
		if declare -F _command_offset > /dev/null; then
			local at=2
			[ "${COMP_WORDS[2]}" != -- ] || at=3
			[ "$COMP_CWORD" -lt "$at" ] || { _command_offset "$at"; return; }
		fi
		words="--"
		;;
	snapshot) words="--vm" ;;
	stat)
		case $prev in
		--by|-b) words="reason vm vcpu vm,reason vcpu,reason" ;;
		--sort|-s) words="rate total time avg p99 name" ;;
		*) words="--once --csv --by --sort --vm --latency --interval --count" ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _keel keel
