-- The Debian package: made by scripts/package of the build under test.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

local function shell(command, ...)
  local pipe = assert(io.popen(("(%s) 2>&1; echo \"status $?\""):format(command:format(...)), "r"))
  local text = pipe:read "*a"
  pipe:close()
  local out, status = text:match "^(.*)status (%d+)\n$"
  return out, tonumber(status)
end

local function succeed(command, ...)
  local out, status = shell(command, ...)
  if status ~= 0 then error(("%s: status %d\n%s"):format(command:format(...), status, out), 2) end
  return out
end

local function installed(tool) return os.execute(("command -v %s >/dev/null"):format(tool)) == 0 end

describe("the Debian package", function()
  local deb

  setup(function()
    deb = succeed("scripts/package %q", os.getenv "PENSTOCK_BUILD"):match "([^\n]+%.deb)\n$"
  end)

  it("has the binary, the unit, manual pages, completions, examples and a configuration", function()
    local list = succeed("dpkg-deb -c %s", deb)
    for _, path in ipairs {
      "/usr/bin/penstock", "/lib/systemd/system/penstock.service", "/etc/penstock/penstock.lua",
      "/usr/share/man/man1/penstock.1.gz", "/usr/share/man/man5/penstock.lua.5.gz",
      "/usr/share/bash-completion/completions/penstock", "/usr/share/zsh/vendor-completions/_penstock",
      "/usr/share/fish/vendor_completions.d/penstock.fish", "/usr/share/penstock/penstock.d.lua",
      "/usr/share/doc/penstock/examples/echo.lua", "/usr/share/doc/penstock/examples/monitoring/alerts.yml",
      "/usr/share/doc/penstock/examples/monitoring/grafana-dashboard.json",
      "/usr/share/doc/penstock/examples/penstock.socket",
      "/usr/share/doc/penstock/copyright", "/usr/share/doc/penstock/changelog.gz",
    } do
      assert.is_truthy(list:find(" ." .. path .. "\n", 1, true), path .. " is missing:\n" .. list)
    end
    assert.is_nil(list:find "/usr/local")
    assert.equal("/etc/penstock/penstock.lua\n", succeed("dpkg-deb -I %s conffiles", deb))
  end)

  it("depends on the libraries that the binary is linked to", function()
    local depends = succeed("dpkg-deb -f %s Depends", deb)
    for _, library in ipairs { "libuv1", "libssl3", "libc%-ares2", "libluajit", "libseccomp2", "libc6", "adduser" } do
      assert.matches(library, depends)
    end
  end)

  case("has a binary that runs as it is", function(t)
    local root, server = t:folder() .. "/root", t:listen()
    succeed("dpkg-deb -x %s %s", deb, root)
    local p = t:penstock({ "127.0.0.1:0", server.address },
      { under = { "sh", "-c", ('exec %s/usr/bin/penstock "$@"'):format(root) } })
    t:expect_echo(p, server)
  end)

  if installed "lintian" then
    it("has no errors for lintian", function() succeed("lintian --allow-root --fail-on error %s", deb) end)
  else
    pending "has no errors for lintian (not installed)"
  end

  if succeed "id -u" == "0\n" and select(2, shell "unshare --mount true") == 0 then
    it("installs, answers as its own user, keeps a changed configuration, and goes without a trace", function()
      local out, status = shell("unshare --mount tests/package/trial %s", deb)
      if status == 77 then return pending "no overlay file system here" end
      assert.equal(0, status, out)
      for _, line in ipairs {
        "user: penstock shell: /usr/sbin/nologin\n", "0 warnings\n",
        "/man1/penstock.1.gz\n", "/man5/penstock.lua.5.gz\n",
        "answer: penstock runs: ", "stopped cleanly\n", "an upgrade keeps the configuration\n",
        "removed but for its configuration\n", "purged\n",
      } do
        assert.is_truthy(out:find(line, 1, true), ("no %q in:\n%s"):format(line, out))
      end
      if installed "systemd-analyze" then assert.matches("unit: good\n", out) end
    end)
  else
    pending "installs and goes without a trace (takes root and a mount namespace)"
  end
end)

describe("the unit", function()
  if not installed "systemd-analyze" then return pending "is hardened (no systemd)" end

  it("is hardened: what systemd-analyze calls exposure is 2 at most", function()
    local out = succeed "systemd-analyze security --offline=true --no-pager packaging/systemd/penstock.service"
    local level = tonumber(out:match "Overall exposure level for penstock.service: ([%d.]+)")
    assert.is_true(level <= 2.0, out)
  end)

  it("lets penstock enter its sandbox", function()
    local listed = succeed "systemd-analyze syscall-filter @system-service @process @default"
    local unit = e2e.sys.read_file "packaging/systemd/penstock.service"
    assert.is_truthy(listed:find "\n *seccomp\n" or unit:find "\nSystemCallFilter=seccomp\n")
    assert.is_truthy(unit:find "\nSystemCallErrorNumber=EPERM\n")
  end)

  it("gives connections the time to end that penstock does", function()
    local unit = e2e.sys.read_file "packaging/systemd/penstock.service"
    local help = succeed("%s --help", os.getenv "PENSTOCK")
    local drain = tonumber(help:match "drain%-timeout[^\n]-\n?[^\n]-(%d+)s")
    assert.is_true(tonumber(unit:match "TimeoutStopSec=(%d+)") > (drain or error("no drain time in:\n" .. help)))
  end)
end)

describe("the image", function()
  -- The configurations and the check as they are, but for the ports, and a bind that is for all.
  local function configuration(t, name)
    return t:file(name, (e2e.sys.read_file("packaging/docker/" .. name)
      :gsub("127.0.0.1:9180", "127.0.0.1:0"):gsub('":8080"', '"127.0.0.1:0"')))
  end

  local function check(port)
    local words = e2e.sys.read_file "packaging/docker/Dockerfile":match 'CMD %["bash", "%-c", "(exec.-)"%]'
    local command = words:gsub('\\"', '"'):gsub("9180", tostring(port))
    return os.execute(("bash -c '%s' 2>/dev/null"):format(command)) == 0
  end

  for name, n in pairs { ["penstock.lua"] = 1, ["web.lua"] = 2 } do
    case("is healthy while the listener of " .. name .. " answers, and not when it is gone", function(t)
      local p = t:penstock { "run", configuration(t, name) }
      local port = p.ports[n]
      assert.is_true(check(port))
      p:stop()
      assert.is_false(check(port))
    end)
  end
end)

describe("penstock.lua(5)", function()
  it("is made of docs/lua-api.md with each of its sections, and groff has nothing against it", function()
    local page = os.tmpname()
    succeed("scripts/lua-manual 1.2.3 < docs/lua-api.md > %s", page)
    assert.equal("", succeed("man --warnings -E UTF-8 -l -Tutf8 -Z %s 2>&1 >/dev/null", page))
    local made = e2e.sys.read_file(page):gsub("\\f[BR]", ""):gsub("\\%-", "-"):gsub("\\%(aq", "'")
    os.remove(page)
    for heading in e2e.sys.read_file "docs/lua-api.md":gmatch "\n###? ([^\n]+)" do
      local plain = heading:gsub("`", "")
      assert.is_truthy(made:find("\n.S[HS] " .. plain:gsub("%p", "%%%0")), heading .. " is missing")
    end
  end)

  it("is not made of what the maker does not know, and the line is told", function()
    local out, status = shell("printf '# A\\n\\n##### Deep\\n' | scripts/lua-manual 1.2.3")
    assert.equal(1, status)
    assert.matches("line 3: a heading of this depth", out)
  end)
end)
