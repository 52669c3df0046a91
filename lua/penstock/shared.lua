-- ps.store, ps.bucket, ps.counter, ps.gauge, ps.histogram, ps.metrics: what all workers share. The functions here check
-- arguments; what they make are userdata of core/script/lib_store.c, lib_bucket.c, lib_metrics.c.
local check = require "penstock.check"

local type, error, next, larger, huge = type, error, next, math.max, math.huge

local store_call = "ps.store(name, { items = 100000, bytes = \"256M\" })"
local bucket_call = "ps.bucket(name, { rate = 5, burst = 20 })"
local wait_call = "bucket:wait(key, n, max)"
local store_keys, bucket_keys = { "items", "bytes" }, { "rate", "burst", "keys" }
local KEYS, KEYS_MAX = 100000, 1e9

-- Upper bounds in seconds, as Prometheus' own libraries have them.
local default_buckets = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

local function check_name(name, call)
  if type(name) ~= "string" or name == "" or #name > 64 or name:find "[^%w_.:-]" then
    error(call .. ": the name is a word of at most 64 letters, digits, and _ . : -", 3)
  end
end

local function is_whole(n, least)
  return type(n) == "number" and n >= least and n <= KEYS_MAX and n % 1 == 0
end

-- What a primitive made, or an error in the caller of ps.*; no tail call of it: that would lose the caller.
local function made(call, thing, why)
  if thing == nil then error(call .. ": " .. why, 3) end
  return thing
end

-- add(ps, core, time_ms): adds the functions to `ps`.
return function(ps, core, time_ms)
  -- A size above 0, or nil.
  local function size(value)
    local n = core.size(value)
    return n and n > 0 and n < 2 ^ 53 and n or nil
  end

  function ps.store(name, options)
    check_name(name, store_call)
    if options == nil then
      local thing = made(store_call, core.store(name))
      return thing
    end
    check.keys(options, store_call, store_keys, 2)
    local items = options.items == nil and core.STORE_ITEMS or options.items
    if not is_whole(items, 1) then
      error(store_call .. ": items is a whole number, 1 or more", 2)
    end
    local bytes = size(options.bytes == nil and core.STORE_BYTES or options.bytes)
    if not bytes or bytes < core.STORE_BYTES_MIN then
      error(store_call .. ": bytes is a size of \"2M\" or more", 2)
    end
    local thing = made(store_call, core.store(name, items, bytes))
    return thing
  end

  function ps.bucket(name, options)
    check_name(name, bucket_call)
    check.keys(options, bucket_call, bucket_keys, 2)
    local rate = size(options.rate)
    if not rate then error(bucket_call .. ": rate is tokens a second, above 0, such as 0.5, 5 or \"256K\"", 2) end
    local burst = options.burst == nil and larger(rate, 1) or size(options.burst)
    if not burst or burst < 1 then
      error(bucket_call .. ": burst is the most tokens at once, 1 or more, such as 20 or \"1M\"", 2)
    end
    local keys = options.keys == nil and KEYS or options.keys
    if not is_whole(keys, 1) then error(bucket_call .. ": keys is a whole number, 1 or more", 2) end
    local thing = made(bucket_call, core.bucket(name, rate, burst, keys))
    return thing
  end

  -- Reserves the tokens and waits until it is their time: who comes later waits behind.
  function core.bucket_methods.wait(bucket, key, n, max)
    if type(key) ~= "string" and type(key) ~= "number" then
      error(("%s: the key is a string, not %s"):format(wait_call, type(key)), 2)
    end
    if n == nil then n = 1 end
    if type(n) ~= "number" or not (n >= 0 and n < huge) then
      error(wait_call .. ": n is a number of tokens, 0 or more", 2)
    end
    local ms, word = core.reserve(bucket, key, n, max ~= nil and time_ms(max, wait_call .. ": max", 2) or nil)
    if not ms then return nil, word end
    if ms == 0 then return true end
    local ok, why = core.sleep(ms)
    if ok then return true end
    core.give(bucket, key, n)
    error(why, 2)
  end

  local function add_metric(kind, option_keys)
    local call = ('ps.%s(name, { "label" }, { %s })'):format(kind,
      kind == "histogram" and "help = \"…\", buckets = { 0.1, 1, 10 }" or "help = \"…\"")
    ps[kind] = function(name, labels, options)
      if labels == nil then labels = {} end
      if options == nil then options = {} end
      if type(name) ~= "string" then error(call .. ": the name is a string", 2) end
      if type(labels) ~= "table" or next(labels) ~= nil and #labels == 0 then
        error(call .. ": the labels are a list of names", 2)
      end
      check.keys(options, call, option_keys, 2)
      local bounds = {}
      if kind == "histogram" then bounds = options.buckets == nil and default_buckets or options.buckets end
      if type(bounds) ~= "table" then error(call .. ": buckets is a list of numbers", 2) end
      local thing = made(call, core.metric(kind, name, labels, options.help == nil and "" or options.help, bounds))
      return thing
    end
  end

  add_metric("counter", { "help" })
  add_metric("gauge", { "help" })
  add_metric("histogram", { "help", "buckets" })
  ps.metrics = core.metrics
end
