-- The options in force, over the admin.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case = e2e.case
local ask, null = admin.ask, require("cjson").null

local function socket(t) return "unix:" .. t:folder() .. "/admin.sock" end

local function config(t, at)
  local status, body = ask(t, at, "/v1/config")
  assert(status == 200, status)
  return body
end

describe("the configuration that the admin shows", function()
  case("has every option of --help, and no other", function(t)
    local help = select(3, t:run { "--help" })
    local at = socket(t)
    t:penstock { "--admin", at, "127.0.0.1:0", "127.0.0.1:1" }
    local body, left = config(t, at), { version = true, help = true }
    for _, options in ipairs { body.process, body.listeners[1].options } do
      for name in pairs(options) do
        assert.is_truthy(help:find("--" .. name, 1, true), name)
        left[name] = true
      end
    end
    local n = 0
    for name in help:gmatch "\n *%-?%a?,? ?%-%-([%w-]+)" do
      assert.is_true(left[name], "--" .. name .. " is missing")
      n = n + 1
    end
    assert.is_true(n > 60)
  end)

  case("is what the command line, the configuration and the defaults make of it", function(t)
    local at, path = socket(t), t:file("penstock.lua", [[
      local ps = require "penstock"
      ps.options { drain_timeout = "1500ms", log = "debug" }
      ps.listen { name = "a", bind = { "127.0.0.1:0", "127.0.0.1:0" }, to = "127.0.0.1:1", timeouts = { idle = "2m" } }
      ps.listen { name = "b", bind = "127.0.0.1:0", to = "127.0.0.1:1", limits = { per_ip = 3 } }
    ]])
    t:penstock { "--admin", at, "--rate-up", "64K", "--idle-timeout", "5",
      "--via", "socks5://user:secret@127.0.0.1:1080", "run", path }
    local body = config(t, at)
    local p, a, b = body.process, body.listeners[1], body.listeners[2]
    assert.same({ path, 1, "1500ms", "debug", "debug", at, null },
      { p.policy, p.workers, p["drain-timeout"], p.log, body.log_level, p.admin, p["pid-file"] })
    assert.same({ { "a", "a" }, "2m", "64K", 0 },
      { a.names, a.options["idle-timeout"], a.options["rate-up"], a.options["max-per-ip"] })
    assert.same({ { "b" }, "5s", "64K", 3, "10s" }, { b.names, b.options["idle-timeout"], b.options["rate-up"],
      b.options["max-per-ip"], b.options["handshake-timeout"] })
    assert.same({ "socks5://127.0.0.1:1080" }, a.options.via)
    assert.is_nil(require("cjson").encode(body):find "secret")
  end)

  case("changes with a reload, but for what holds from the start", function(t)
    local function write(text) return t:file("penstock.lua", [[
      local ps = require "penstock"
      ps.listen { name = "a", bind = "127.0.0.1:0", to = "127.0.0.1:1", timeouts = { idle = "]] .. text)
    end
    local at, path = socket(t), write '1m" } }'
    t:penstock { "--admin", at, "run", path }
    assert.equal("1m", config(t, at).listeners[1].options["idle-timeout"])
    write '2m" } } ps.options { drain_timeout = "1s", workers = 7, pid_file = "/nowhere/pid" }'
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    local body = config(t, at)
    assert.same({ 2, "2m", "1s", 1, null }, { body.configuration, body.listeners[1].options["idle-timeout"],
      body.process["drain-timeout"], body.process.workers, body.process["pid-file"] })
    assert.equal(200, (ask(t, at, "/v1/log-level", { method = "PUT", body = "debug" })))
    body = config(t, at)
    assert.same({ "info", "debug" }, { body.process.log, body.log_level })
    write "no"
    t:expect_error "stays in force"
    assert.equal(422, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal("2m", config(t, at).listeners[1].options["idle-timeout"])
  end)

  case("is short where a range makes many listeners of one", function(t)
    local at = socket(t)
    local p = t:penstock { "--admin", at, "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0", "127.0.0.1:1" }
    assert.same({ { p.addresses[1], p.addresses[2], p.addresses[3] } }, { config(t, at).listeners[1].names })
    assert.equal(1, #config(t, at).listeners)
  end)

  case("has the files of TLS, not what is in them", function(t)
    local at = socket(t)
    local cert, key = t:folder() .. "/cert.pem", t:folder() .. "/key.pem"
    local made = t:spawn { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
      "-subj", "/CN=a.example", "-keyout", key, "-out", cert }
    assert.equal(0, made:wait())
    t:penstock { "--admin", at, "--tls-cert", cert, "--tls-key", key, "--tls-sni", "b.example=" .. cert .. "," .. key,
      "127.0.0.1:0", "127.0.0.1:1" }
    local o = config(t, at).listeners[1].options
    assert.same({ { cert }, { key }, { "b.example=" .. cert .. "," .. key } },
      { o["tls-cert"], o["tls-key"], o["tls-sni"] })
  end)
end)
