-- TLS for policies: certificates for the sni hook, and TLS that begins in the midst of a connection.
local check = require "penstock.check"
local error, type = error, type

local cert_call = 'ps.certificate{ cert = "a.pem", key = "a.key" }'

-- install(ps, core); true and results, or false and what to raise, come from C.
return function(ps, core)
  local tls = core.tls

  local function settle(ok, a, b, c)
    if ok then return a, b, c end
    return error(a, 3)
  end

  -- ps.certificate{ cert =, key = } -> a certificate with its key, for the sni hook to return.
  function ps.certificate(options)
    check.keys(options, cert_call, { "cert", "key" }, 2)
    if type(options.cert) ~= "string" or (options.key ~= nil and type(options.key) ~= "string") then
      error(cert_call .. ": cert and key are names of files", 2)
    end
    if not core.is_loading() then
      error(cert_call .. " reads files: call it while the policy loads, not in a hook", 2)
    end
    local cert, why = tls.certificate(options.cert, options.key)
    if not cert then error("ps.certificate: " .. why, 2) end
    return cert
  end

  -- The method of conn: conn:starttls(side, options) -> true; nil, word, detail.
  return function(self, side, options) return settle(tls.start(self, side, options)) end
end
