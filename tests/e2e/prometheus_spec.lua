-- A real Prometheus scrapes penstock, and what examples/monitoring has for it: the alerts, and the dashboard's queries.
local cjson = require "cjson"
local admin = require "tests.e2e.support.admin"
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local tls = require "tests.e2e.support.tls"
local case_with, sys = peers.case_with, e2e.sys

local monitoring = "examples/monitoring/"
local token = "0123456789abcdef0123456789abcdef"

local function token_file(t, name, text)
  local path = t:file(name, text .. "\n")
  assert(os.execute("chmod 600 " .. path) == 0)
  return path
end

-- The scrape job of the examples, for the admins at these addresses, each second, with the alerts.
local function configuration(t, ...)
  local text = assert(sys.read_file(monitoring .. "prometheus.yml"))
  local function put(from, to)
    local first, last = text:find(from, 1, true)
    assert(first, "prometheus.yml has no " .. from)
    text = text:sub(1, first - 1) .. to .. text:sub(last + 1)
  end
  put("scrape_interval: 15s", "scrape_interval: 1s")
  put("evaluation_interval: 15s", "evaluation_interval: 1s")
  put("/etc/prometheus/penstock.token", t:folder() .. "/token")
  put('"10.0.0.5:9180"', '"' .. table.concat({ ... }, '", "') .. '"')
  t:file("alerts.yml", assert(sys.read_file(monitoring .. "alerts.yml")))
  return t:file("prometheus.yml", text)
end

-- Starts Prometheus with its data in the case's folder. Returns its address.
local function start_prometheus(t, ...)
  local address = "127.0.0.1:" .. peers.free_port(t)
  local child = t:spawn { "prometheus", "--config.file=" .. configuration(t, ...), "--web.listen-address=" .. address,
    "--storage.tsdb.path=" .. t:folder() .. "/data", "--log.level=warn" }
  peers.wait_for_listener(t, address, child)
  return address
end

local function encode(text)
  return (text:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))
end

-- An answer of its HTTP API: status, data. It says 503 until it has started.
local function ask(t, address, path)
  local status, body = admin.ask(t, address, "/api/v1/" .. path)
  return status, type(body) == "table" and (body.data or body.error) or body
end

-- Waits until `done(data)` is true of the answer to `path`, and returns what it returned.
local function await(t, address, path, done)
  local data
  local result = sys.wait_until(function()
    local status
    status, data = ask(t, address, path)
    return status == 200 and done(data)
  end)
  return result or error(("%s: still %s"):format(path, cjson.encode(data)), 2)
end

-- The samples of an instant query, as value by the label `by`, or the only value.
local function samples(data, by)
  local values = {}
  for _, sample in ipairs(data.result) do values[by and sample.metric[by] or 1] = tonumber(sample.value[2]) end
  return by and values or values[1]
end

local function await_value(t, address, query, want)
  await(t, address, "query?query=" .. encode(query), function(data) return samples(data) == want end)
end

local function end_both(client, upstream)
  client:finish()
  upstream:expect_eof()
  upstream:finish()
  client:expect_eof()
end

local function start(t, server, file)
  local cert = tls.certificate(t:folder(), "a.lab")
  local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-token-file", file, "run", t:file("penstock.lua", ([[
    local ps = require "penstock"
    ps.listen { name = "web", bind = "127.0.0.1:0", to = ps.pool { name = "db", servers = { %q } } }
    ps.listen { name = "safe", bind = "127.0.0.1:0", to = %q, tls = { cert = %q, key = %q } }
    ps.listen { name = "proxied", bind = "127.0.0.1:0", accept_proxy = { from = "127.0.0.1" }, to = %q }
  ]]):format(server.address, server.address, cert.cert, cert.key, server.address)) }
  return p, p:log "admin listens on (%S+)"
end

-- Both targets have been scraped: one that takes the token, and one that has another.
local function expect_targets(t, address, good, bad)
  local targets = await(t, address, "targets", function(data)
    local targets = {}
    for _, target in ipairs(data.activeTargets) do targets[target.labels.instance] = target end
    return targets[good] and targets[good].health ~= "unknown" and targets[bad] and targets[bad].health ~= "unknown" and
      targets
  end)
  assert.same({ "up", "" }, { targets[good].health, targets[good].lastError })
  assert.equal("down", targets[bad].health)
  assert.matches("HTTP status 401", targets[bad].lastError)
end

local function expect_counts(t, address, p, server)
  for _ = 1, 7 do end_both(t:expect_echo(p, server)) end
  t:expect_echo(p, server):reset()
  local kept, upstream = t:expect_echo(p, server)
  await_value(t, address, 'penstock_connections_total{listener="web",reason="eof"}', 7)
  await_value(t, address, 'penstock_connections_total{listener="web",reason="reset"}', 1)
  await_value(t, address, 'penstock_connections{listener="web"}', 1)
  await_value(t, address, 'penstock_bytes_total{listener="web",direction="up"}', 9 * #"ping")
  await_value(t, address, 'penstock_connect_seconds_count{listener="web"}', 9)
  end_both(kept, upstream)
  await_value(t, address, 'sum(penstock_connections_total{listener="web"})', 9)
end

-- Every query of the dashboard, with its variables and intervals filled in.
local function queries_of(dashboard)
  local list = {}
  for _, panel in ipairs(dashboard.panels) do
    for _, target in ipairs(panel.targets or {}) do
      list[#list + 1] = { panel.title,
        (target.expr:gsub("%$__rate_interval", "1m"):gsub("%$job", "penstock"):gsub("%$%l+", ".*")) }
    end
  end
  return list
end

-- A rate takes two scrapes, which have been: numbers from before and after have come.
local function expect_panels(t, address, dashboard)
  local n = 0
  for _, query in ipairs(queries_of(dashboard)) do
    local status, data = ask(t, address, "query?query=" .. encode(query[2]))
    assert.equal(200, status, ("%s: %s: %s"):format(query[1], query[2], cjson.encode(data)))
    assert.is_true(#data.result > 0, ("%s shows nothing: %s"):format(query[1], query[2]))
    n = n + 1
  end
  assert.is_true(n > 30, n .. " queries were tried")
end

-- In one case, because a Prometheus takes 5 s to its first scrape.
describe("Prometheus", function()
  case_with("prometheus curl", "scrapes who takes the token, tells who does not, and fills the dashboard", function(t)
    local server = t:listen()
    local p, good = start(t, server, token_file(t, "token", token))
    local _, bad = start(t, server, token_file(t, "another", ("x"):rep(32)))
    t:connect(p.addresses[3]):send("no header\r\n"):expect_reset()
    local address = start_prometheus(t, good, bad)
    expect_targets(t, address, good, bad)
    expect_counts(t, address, p, server)
    expect_panels(t, address, cjson.decode(sys.read_file(monitoring .. "grafana-dashboard.json")))
    await(t, address, "query?query=" .. encode 'ALERTS{alertname="PenstockDown"}', function(data)
      return #data.result == 1 and data.result[1].metric.instance == bad
    end)
  end)
end)

describe("examples/monitoring:", function()
  local dashboard = cjson.decode(sys.read_file(monitoring .. "grafana-dashboard.json"))

  case_with("promtool", "the alerts and the scrape job are right, and every alert is tried", function(t)
    peers.run(t, { "promtool", "check", "rules", monitoring .. "alerts.yml" })
    peers.run(t, { "promtool", "check", "config", "--syntax-only", monitoring .. "prometheus.yml" })
    assert.matches("SUCCESS", peers.run(t, { "promtool", "test", "rules", monitoring .. "alerts_test.yml" }))
    local tests, n = assert(sys.read_file(monitoring .. "alerts_test.yml")), 0
    for name in sys.read_file(monitoring .. "alerts.yml"):gmatch "alert: (%w+)" do
      assert.is_truthy(tests:find(name, 1, true), name .. " is not tried")
      n = n + 1
    end
    assert.is_true(n > 10)
  end)

  it("the dashboard's panels have a place and a number of their own, and say what they show", function()
    local ids, cells = {}, {}
    for _, panel in ipairs(dashboard.panels) do
      assert.is_nil(ids[panel.id], "two panels have the id " .. panel.id)
      ids[panel.id] = true
      assert.is_true(panel.type == "row" or #panel.description > 0, panel.title .. " says nothing")
      local place = panel.gridPos
      assert.is_true(place.x >= 0 and place.x + place.w <= 24, panel.title .. " is beside the grid")
      for x = place.x, place.x + place.w - 1 do
        for y = place.y, place.y + place.h - 1 do
          local cell = x .. "," .. y
          assert.is_nil(cells[cell], ("%s lies on %s"):format(panel.title, cells[cell] or ""))
          cells[cell] = panel.title
        end
      end
      for _, target in ipairs(panel.targets or {}) do assert.equal("${datasource}", target.datasource.uid) end
    end
  end)
end)
