package policy

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// runners are programs that run what their arguments name, other than by options, which no
// pattern lets in: shells, interpreters, editors and pagers, what builds, and what runs
// something else elsewhere, later or as somebody else. With arguments that nobody has spelt
// out they are a shell.
var runners = words(`
	ansible ansible-playbook apt apt-get aptitude artisan ash at awk bash batch bsh bun bundle bundler busctl busybox
	bwrap capsh cargo choom chpst chronic chroot chrt cmake composer conda cpan cpulimit crictl crontab csh ctr
	daemonize dash dbus-run-session dc deno dnf doas docker docker-compose dpkg drush dtach duckdb dumb-init eatmydata
	ed elvish emacs emacsclient entr env envdir envuidgid es ex expect fakeroot faketime file-rename find firejail fish
	flock gawk gdb gdbserver gem git gmake gnuplot go gosu gradle groovy guile gvim ifne incus insmod ionice ip ipython
	irb java joe jshell julia ksh kubectl less lftp linux32 linux64 lksh lldb ln logrotate logsave ltrace lua luajit lxc
	m4 machinectl make man manage mariadb mawk mc mksh mongo mongosh more mosh-server most mvn mycli mysql nano nawk
	nerdctl nice ninja nix-shell node nodejs nohup npm npx nsenter numactl nvim oc octave original-awk parallel
	parallel-ssh pct pdksh pdsh pee perf perl pgcli php pico pip pipx pkexec pm2 pnpm pnpx podman poetry posh prename
	prlimit proxychains pry psql pssh puppet pwsh pypy python rails rake rbash rc rename rksh rlwrap rpm rscript rsync
	ruby run-one run-parts run0 runuser rview rvim rzsh salt salt-call scons screen script sed setarch setpriv setsid
	setuidgid sftp sg sh smbclient snap socat softlimit sqlite sqlplus ssh ssh-agent sshpass start-stop-daemon stdbuf
	strace su su-exec sudo sysctl systemctl systemd-cat systemd-inhibit systemd-nspawn systemd-run tar taskset tclsh
	tcsh time timeout tini tmux torsocks tox toybox ts-node tsx unbuffer unshare uv uvx vagrant valgrind vi view vim
	vimdiff watch wish wp xargs xvfb-run yarn yash yum zip zsh zypper`)

// tame are what some of the runners may be told first, and then run nothing that further arguments name.
var tame = lists(map[string]string{
	"apt apt-get":           "list madison policy search show",
	"busctl":                "introspect list status tree",
	"dnf yum zypper":        "info list search",
	"docker nerdctl podman": "images inspect kill logs pause port ps restart start stats stop top unpause",
	"docker-compose":        "logs ps restart start stop top",
	"dpkg":                  "--list --listfiles --search --status -L -S -l -s",
	"ip":                    "a addr address l link n neigh neighbor neighbour r route rule",
	"kubectl oc":            "describe get logs rollout top",
	"machinectl":            "list show status",
	"rpm":                   "--query -q -qa -qf -qi -ql",
	"snap":                  "info list",
	"systemctl": `cat disable is-active is-enabled is-failed kill list-dependencies list-jobs list-sockets list-timers list-unit-files
		list-units mask reload reload-or-restart reset-failed restart show start status stop try-restart unmask`,
})

// beside are options that may stand before that, and take no value.
var beside = words("--no-pager --quiet --system --user -4 -6 -br -q")

// told are programs that do what their input says, which has a way out to a shell, unless an argument
// says all that they do: one of these options, or with * any that is none.
var told = lists(map[string]string{
	"ed ex ftp nvi nvim rview rvim sqlplus vi view vim vimdiff":                                                         "",
	"ash bash csh dash elvish fish ksh lksh mksh pdksh posh pwsh pypy python rbash rksh rzsh sh tcsh zsh":               "* --version -V",
	"bun dc deno gnuplot guile ipython irb jshell julia lua luajit m4 node nodejs octave parallel perl ruby tclsh wish": "* --version -V -v",
	"at":            "-c -d -f -l -r",
	"batch":         "-f",
	"crontab":       "-l -r",
	"gdb lldb":      "--batch -batch",
	"lftp":          "-c -f",
	"mariadb mysql": "--execute --version -V -e",
	"mongo mongosh": "--eval --version",
	"php":           "* --version -i -m -v",
	"psql":          "--command --file --list --version -V -c -f -l",
	"runuser su":    "--command -c",
	"sftp":          "-b",
	"smbclient":     "--command --list -L -c",
	"duckdb sqlite": "statement",
})

// prompts are programs that, at a terminal, run what is typed, whatever their arguments
// are: editors, pagers and clients with a way out to a shell.
var prompts = words(`
	bzless crontab dselect ed editor elinks emacs ex ftp gdb iftop info irssi joe jmacs jpico jstar k9s lazydocker lazygit
	less lf lftp links litecli lldb lnav lynx mail mailx man mariadb mc mcdiff mcedit mcview micro more most multitail mutt
	mycli mysql nano ncdu neomutt nnn nvi nvim pager perldoc pg pgcli pico psql ranger rview rvim s-nail sensible-editor
	sensible-pager sftp smbclient sqlite sqlplus sudoedit telnet tig vi view vifm vigr vim vimdiff vipw visudo w3m weechat
	xzless zless zmore zstdless`)

// paging are programs that show what they say at a terminal in a pager, unless they are told not to.
var paging = words(`
	bootctl busctl coredumpctl dpkg dpkg-query git homectl hostnamectl journalctl localectl loginctl machinectl networkctl
	resolvectl systemctl systemd-analyze systemd-cgls timedatectl udevadm userdbctl`)

// wrappers are runners that run the command which follows, after so many words of their own beside options.
var wrappers = map[string]int{
	"busybox": 0, "chroot": 1, "chrt": 0, "doas": 0, "env": 0, "faketime": 1, "flock": 1, "ionice": 0, "ltrace": 0, "nice": 0, "nohup": 0,
	"numactl": 0, "setpriv": 0, "setsid": 0, "stdbuf": 0, "strace": 0, "sudo": 0, "systemd-inhibit": 0, "systemd-run": 0, "taskset": 0,
	"time": 0, "timeout": 0, "toybox": 0, "unbuffer": 0, "unshare": 0, "watch": 0, "xargs": 0,
}

// lists takes lists of names, each with what is said of them.
func lists(of map[string]string) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for names, said := range of {
		for name := range words(names) {
			out[name] = words(said)
		}
	}
	return out
}

// named is what is said of a program, whichever release or flavour of it the name goes on to
// tell: perl5.36, vim.basic.
func named[V any](some map[string]V, name string) (said V, ok bool) {
	name = strings.ToLower(name)
	if said, ok = some[name]; ok {
		return said, true
	}
	i := strings.IndexAny(name, ".0123456789")
	if i <= 0 {
		return said, false
	}
	// ip6tables is no release of ip.
	if more := strings.TrimLeft(name[i:], ".0123456789"); name[i] == '.' || more == "" || more[0] == '-' {
		said, ok = some[name[:i]]
	}
	return said, ok
}

func isOne(some map[string]bool, name string) bool {
	_, ok := named(some, name)
	return ok
}

// open reports whether an argument is not spelt out.
func open(arg string) bool { return strings.Contains(arg, "*") || arg == "..." }

// asShell says why a command is a shell and should be permitted as one; nothing where it is
// none. Its arguments are patterns, the last of which may be "...".
func asShell(name string, args []string, terminal bool) string {
	inner, sure := wrapped(name, args)
	if len(inner) > 0 {
		if why := asShell(path.Base(inner[0]), inner[1:], terminal); why != "" {
			return why
		}
	}
	first, _ := named(tame, name)
	switch {
	case slices.ContainsFunc(args, open) && isOne(runners, name) && !sure && !begins(args, first):
		but := ""
		if len(first) > 0 {
			but = ", begin with one of " + strings.Join(slices.Sorted(maps.Keys(first)), ", ")
		}
		return fmt.Sprintf("%s runs what its arguments say: spell all of them out%s, or permit the channel shell", name, but)
	case reads(name, args):
		return fmt.Sprintf("%s runs what it reads from its input: have an argument say all that it does, or permit the channel shell", name)
	case terminal && isOne(prompts, name):
		return fmt.Sprintf("%s runs what is typed at a terminal: leave out pty, or permit the channel shell", name)
	case terminal && paging[name] && !slices.Contains(args, "--no-pager"):
		return fmt.Sprintf("%s shows a pager at a terminal, which runs what is typed: add --no-pager, leave out pty, or permit the channel shell", name)
	}
	return ""
}

// begins reports whether the first argument is one of some.
func begins(args []string, some map[string]bool) bool {
	i := slices.IndexFunc(args, func(a string) bool { return some[a] || !beside[a] })
	return i >= 0 && some[args[i]]
}

// wrapped is the command that a wrapper runs, as far as that can be told; nothing for others. It is sure
// where it can be no other: behind sudo, by its path.
func wrapped(name string, args []string) (inner []string, sure bool) {
	own, ok := wrappers[name]
	sure = name == "sudo" || name == "doas"
	for i := 0; ok && i < len(args); i++ {
		switch a := args[i]; {
		case asWhom.MatchString(a):
			i++
			sure = sure && len(a) == 2 && i < len(args) && !open(args[i])
		case a == "-n" || a == "-H":
		case a == "" || a[0] == '-' || a[0] >= '0' && a[0] <= '9' || strings.Contains(a, "="):
			sure = false
		case own > 0:
			own--
		default:
			return args[i:], sure && path.IsAbs(a) && !open(a)
		}
	}
	return nil, false
}

// asWhom is an option that names an account, after others without a value. By those of rouses sudo runs an editor,
// or a shell where no command follows; the key says whether one does.
var (
	asWhom = regexp.MustCompile(`^-[A-Za-z]*[ug]$`)
	rouses = map[bool]*regexp.Regexp{
		true:  regexp.MustCompile(`^(-[bEHikKnPsSv]*e.*|--edit)$`),
		false: regexp.MustCompile(`^(-[bEHkKnPSv]*[ise].*|--edit|--login|--shell)$`),
	}
)

// reads reports whether a program does what its input says.
func reads(name string, args []string) bool {
	given, ok := named(told, name)
	if name == "sudo" || name == "doas" {
		inner, _ := wrapped(name, args)
		return slices.ContainsFunc(args[:len(args)-len(inner)], rouses[len(inner) > 0].MatchString)
	}
	if !ok || slices.Contains(args, "-") {
		return ok
	}
	return !slices.ContainsFunc(args, func(a string) bool {
		option, _, _ := strings.Cut(a, "=")
		short := len(a) > 2 && a[0] == '-' && a[1] != '-' && given[a[:2]] // with its value
		return given[option] || short || given["*"] && !strings.HasPrefix(a, "-") ||
			given["statement"] && (strings.Contains(a, " ") || strings.HasPrefix(a, "."))
	})
}

// files are those that a command runs: its program, and what that runs of others and of scripts.
func files(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	name, args := path.Base(argv[0]), argv[1:]
	if inner, _ := wrapped(name, args); len(inner) > 0 {
		return append(files(inner), argv[0])
	}
	if given, _ := named(told, name); given["*"] {
		if i := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") }); i >= 0 {
			return []string{argv[0], args[i]}
		}
	}
	return argv[:1]
}

// steering are variables that change what a permitted command runs or talks to, or from where it reads
// its orders; steeringFamilies are the beginnings of more, of which harmless steer nothing, and
// steeringEnds how still more end.
var (
	steering = words(`
	AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE BASHOPTS CC CDPATH CLASSPATH CONTAINERS_CONF CPP CURL_HOME CXX ENV EXINIT
	FCEDIT FPATH GCONV_PATH GIO_EXTRA_MODULES GLOBIGNORE GNUMAKEFLAGS GOENV GOFLAGS GOROOT GTK_MODULES GTK_PATH GVIMINIT
	HGRCPATH HOME HOSTALIASES IFS INPUTRC KUBECONFIG KUBECTL_EXTERNAL_DIFF LDAPCONF LDAPRC LOCPATH MAKEFILES MAKEFLAGS
	MALLOC_TRACE MAVEN_ARGS MORE MYSQL_HOME NLSPATH NODE_PATH ODBCINI ODBCINSTINI ODBCSYSINI OPENSSL_CONF OPENSSL_ENGINES
	OPENSSL_MODULES PATH PGPASSFILE PGSERVICE PGSERVICEFILE PGSYSCONFDIR PHPRC PHP_INI_SCAN_DIR PROMPT_COMMAND PS1 PS2 PS4
	PSQLRC QT_PLUGIN_PATH RUBYLIB RUBYOPT RUSTC RUSTC_WRAPPER SASL_CONF_PATH SASL_PATH SHELL SHELLOPTS SSLKEYLOGFILE
	SYSTEMD_LESS TCLLIBPATH TERMCAP TERMINFO TERMINFO_DIRS TF_CLI_CONFIG_FILE TNS_ADMIN VIMINIT VISUAL WGETRC
	XDG_CONFIG_DIRS XDG_CONFIG_HOME ZDOTDIR ZIPOPT`)
	steeringFamilies = []string{
		"ANSIBLE_", "AWK", "BASH_", "BUNDLE_", "CARGO_", "CURL_", "DBUS_", "DOCKER_", "DYLD_", "GEM_", "GIT_", "HELM_", "KRB5_", "LD_", "LESS", "LIBMYSQL_", "LUA_",
		"NPM_CONFIG_", "PERL", "PIP_", "PYTHON", "RSYNC_", "R_PROFILE", "TF_CLI_ARGS", "npm_config_",
	}
	steeringEnds = []string{"ASKPASS", "BROWSER", "EDITOR", "OPTIONS", "PAGER", "_OPTS", "_PROXY", "_RSH", "_SSH", "_proxy"}
	harmless     = words("GIT_PROTOCOL PYTHONIOENCODING PYTHONUNBUFFERED PYTHONUTF8")
)

// steers reports whether a variable changes what a permitted command does.
func steers(variable string) bool {
	family := slices.ContainsFunc(steeringFamilies, func(f string) bool { return strings.HasPrefix(variable, f) })
	ends := slices.ContainsFunc(steeringEnds, func(e string) bool { return strings.HasSuffix(variable, e) })
	return steering[variable] || ends || family && !harmless[variable]
}
