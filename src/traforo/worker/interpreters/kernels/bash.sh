# The shell of a context: an interactive bash on the pipe that is its standard input, which reads one line at a time.
# Lines build up the code in pieces, run it, and then say how it ended, behind a mark that ordinary output does not
# have. That it is interactive makes an interrupt break the code and go on with the next line; without job control
# commands in the background are left alone by it.
set +m +o history; unset HISTFILE PROMPT_COMMAND; PS1= PS2= __traforo_run= __traforo_end= __traforo_runs=0
__traforo_say() { builtin printf '\0%s%s3%04d%s' "$__traforo_nonce" "$1" "${#2}" "$2" >&9; }
__traforo_done() { __traforo_end="$__traforo_run $1 0 $__traforo_runs"; __traforo_say D "$__traforo_end"; }
__traforo_again() { if [ "$1" != "$__traforo_run" ]; then __traforo_say S "$__traforo_runs 1"; elif [ "$__traforo_end" ]; then __traforo_say D "$__traforo_end"; else __traforo_done 130; fi; }
__traforo_begin() { __traforo_run=$1 __traforo_end= __traforo_runs=$((__traforo_runs + 1)); }
exec 9>&1; __traforo_say H "$BASH_VERSION"
