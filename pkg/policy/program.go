package policy

import (
	"fmt"
	"slices"
	"strings"
)

// runners are programs that run what their arguments name, other than by options, which no
// pattern lets in: shells, interpreters, editors and pagers, what builds, and what runs
// something else elsewhere, later or as somebody else. With arguments that nobody has spelt
// out they are a shell.
var runners = words(`
	ansible ansible-playbook ash at awk bash batch bsh bun bundle bundler busybox bwrap capsh cargo choom chpst chroot
	chrt cmake composer cpulimit crictl crontab csh ctr daemonize dash dbus-run-session dc deno doas docker dtach
	dumb-init eatmydata ed elvish emacs emacsclient entr env envdir envuidgid es ex expect fakeroot faketime find
	firejail fish flock gawk gdb gdbserver gem git gmake gnuplot go gosu gradle groovy guile gvim insmod ionice ipython
	irb java joe jshell julia ksh kubectl less lftp linux32 linux64 lksh lldb ln logrotate logsave ltrace lua luajit m4
	make man mariadb mawk mc mksh mongo mongosh more mosh-server most mvn mysql nano nawk nerdctl nice ninja node nodejs
	nohup npm npx nsenter numactl nvim octave original-awk parallel pdksh perf perl php pico pip pipx pkexec pnpm podman
	posh prlimit proxychains pry puppet pwsh pypy python rake rbash rc rksh rlwrap rscript rsync ruby run-one run-parts
	runuser rview rvim rzsh scons screen script sed setarch setpriv setsid setuidgid sftp sg sh socat softlimit sqlite
	ssh sshpass start-stop-daemon stdbuf strace su su-exec sudo systemd-cat systemd-inhibit systemd-nspawn systemd-run
	tar taskset tclsh tcsh time timeout tini tmux torsocks tox unbuffer unshare vagrant valgrind vi view vim vimdiff
	watch wish xargs xvfb-run yarn yash zip zsh`)

// prompts are programs that, at a terminal, run what is typed, whatever their arguments
// are: editors, pagers and clients with a way out to a shell.
var prompts = words(`
	bzless crontab ed elinks emacs ex ftp gdb joe less lftp links lldb lynx man mariadb mc more most mutt mysql nano
	neomutt nnn nvim pg pico psql ranger sftp sqlite sudoedit telnet tig vi view vifm vigr vim vimdiff vipw visudo w3m
	xzless zless zmore zstdless`)

// paging are programs that show what they say at a terminal in a pager, unless they are told not to.
var paging = words(`
	coredumpctl dpkg dpkg-query git hostnamectl journalctl localectl loginctl machinectl networkctl resolvectl systemctl
	systemd-analyze systemd-cgls timedatectl`)

// programIs reports whether a program is one of some, whichever release or flavour of it the
// name goes on to tell: perl5.36, vim.basic.
func programIs(some map[string]bool, name string) bool {
	name = strings.ToLower(name)
	plain := name
	if i := strings.IndexAny(name, ".0123456789"); i > 0 {
		plain = name[:i]
	}
	return some[name] || some[plain]
}

// asShell says why a command is a shell and should be permitted as one; nothing where it is
// none. free says that not all of its arguments are spelt out.
func asShell(name string, args []string, free, terminal bool) string {
	switch {
	case free && programIs(runners, name):
		return fmt.Sprintf("%s runs what its arguments say: spell all of them out, or permit the channel shell", name)
	case terminal && programIs(prompts, name):
		return fmt.Sprintf("%s runs what is typed at a terminal: leave out pty, or permit the channel shell", name)
	case terminal && paging[name] && !slices.Contains(args, "--no-pager"):
		return fmt.Sprintf("%s shows a pager at a terminal, which runs what is typed: add --no-pager, leave out pty, or permit the channel shell", name)
	}
	return ""
}

// steering are variables that change what a permitted command runs or talks to, or from where it reads
// its orders; steeringFamilies are the beginnings of more, of which harmless steer nothing.
var (
	steering = words(`
	ALL_PROXY ANT_OPTS AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE BASHOPTS BROWSER CC CDPATH CLASSPATH CPP CURL_HOME
	CVS_RSH CXX EDITOR ENV EXINIT FCEDIT FPATH FTP_PROXY GCONV_PATH GIO_EXTRA_MODULES GLOBIGNORE GNUMAKEFLAGS GOENV
	GOFLAGS GOROOT GRADLE_OPTS GTK_MODULES GTK_PATH GVIMINIT HGRCPATH HOME HOSTALIASES HTTPS_PROXY HTTP_PROXY IFS
	INPUTRC JAVA_OPTS JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS KUBECONFIG LDAPCONF LDAPRC LOCPATH MAKEFILES MAKEFLAGS
	MALLOC_TRACE MANPAGER MAVEN_ARGS MAVEN_OPTS MORE MYSQL_HOME NLSPATH NODE_OPTIONS NODE_PATH NO_PROXY ODBCINI
	ODBCINSTINI ODBCSYSINI OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES PAGER PATH PGPASSFILE PGSERVICE PGSERVICEFILE
	PGSYSCONFDIR PHPRC PHP_INI_SCAN_DIR PROMPT_COMMAND PS1 PS2 PS4 PSQLRC PSQL_EDITOR PSQL_PAGER QT_PLUGIN_PATH
	RES_OPTIONS RUBYLIB RUBYOPT RUSTC RUSTC_WRAPPER SASL_CONF_PATH SASL_PATH SHELL SHELLOPTS SSH_ASKPASS SSLKEYLOGFILE
	SUDO_ASKPASS SUDO_EDITOR SVN_SSH SYSTEMD_EDITOR SYSTEMD_LESS SYSTEMD_PAGER TAR_OPTIONS TCLLIBPATH TERMCAP TERMINFO
	TERMINFO_DIRS TF_CLI_CONFIG_FILE TNS_ADMIN VIMINIT VISUAL WGETRC XDG_CONFIG_DIRS XDG_CONFIG_HOME ZDOTDIR ZIPOPT
	_JAVA_OPTIONS all_proxy ftp_proxy http_proxy https_proxy no_proxy`)
	steeringFamilies = []string{
		"ANSIBLE_", "AWK", "BASH_", "BUNDLE_", "CARGO_", "CURL_", "DOCKER_", "DYLD_", "GEM_", "GIT_", "HELM_", "KRB5_", "LD_", "LESS", "LIBMYSQL_", "LUA_",
		"NPM_CONFIG_", "PERL", "PIP_", "PYTHON", "RSYNC_", "R_PROFILE", "TF_CLI_ARGS", "npm_config_",
	}
	harmless = words("GIT_PROTOCOL PYTHONIOENCODING PYTHONUNBUFFERED PYTHONUTF8")
)

// steers reports whether a variable changes what a permitted command does.
func steers(variable string) bool {
	family := slices.ContainsFunc(steeringFamilies, func(f string) bool { return strings.HasPrefix(variable, f) })
	return steering[variable] || family && !harmless[variable]
}
