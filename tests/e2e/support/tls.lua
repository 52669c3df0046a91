-- TLS peers for tests: OpenSSL by FFI over memory, so that a test has every byte on the wire in its hands. A peer sits
-- on a socket of net.lua; certificates are made by openssl(1) into the case's folder.
local ffi = require "ffi"
local sys = require "tests.e2e.support.sys"

ffi.cdef [[
typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct bio_st BIO;
typedef struct ssl_session_st SSL_SESSION;
const void *TLS_client_method(void);
const void *TLS_server_method(void);
SSL_CTX *SSL_CTX_new(const void *method);
void SSL_CTX_free(SSL_CTX *ctx);
long SSL_CTX_ctrl(SSL_CTX *ctx, int cmd, long larg, void *parg);
int SSL_CTX_use_certificate_chain_file(SSL_CTX *ctx, const char *file);
int SSL_CTX_use_PrivateKey_file(SSL_CTX *ctx, const char *file, int type);
int SSL_CTX_load_verify_locations(SSL_CTX *ctx, const char *file, const char *path);
void SSL_CTX_set_verify(SSL_CTX *ctx, int mode, void *callback);
int SSL_CTX_set_alpn_protos(SSL_CTX *ctx, const unsigned char *protos, unsigned len);
typedef int (*alpn_select)(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
  unsigned in_len, void *arg);
void SSL_CTX_set_alpn_select_cb(SSL_CTX *ctx, alpn_select select, void *arg);
int SSL_CTX_set_cipher_list(SSL_CTX *ctx, const char *list);
SSL *SSL_new(SSL_CTX *ctx);
void SSL_free(SSL *ssl);
void SSL_set_bio(SSL *ssl, BIO *rbio, BIO *wbio);
void SSL_set_connect_state(SSL *ssl);
void SSL_set_accept_state(SSL *ssl);
long SSL_ctrl(SSL *ssl, int cmd, long larg, void *parg);
int SSL_do_handshake(SSL *ssl);
int SSL_read(SSL *ssl, void *buf, int num);
int SSL_write(SSL *ssl, const void *buf, int num);
int SSL_shutdown(SSL *ssl);
int SSL_get_error(const SSL *ssl, int ret);
int SSL_key_update(SSL *ssl, int type);
int SSL_session_reused(const SSL *ssl);
int SSL_set_session(SSL *ssl, SSL_SESSION *session);
SSL_SESSION *SSL_get1_session(SSL *ssl);
void SSL_SESSION_free(SSL_SESSION *session);
const char *SSL_get_version(const SSL *ssl);
void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **data, unsigned *len);
const char *SSL_get_servername(const SSL *ssl, int type);
void *SSL_get1_peer_certificate(const SSL *ssl);
void *X509_get_subject_name(const void *x);
char *X509_NAME_oneline(const void *name, char *buf, int size);
void X509_free(void *x);
int SSL_renegotiate(SSL *ssl);
const void *BIO_s_mem(void);
BIO *BIO_new(const void *type);
int BIO_read(BIO *b, void *data, int len);
int BIO_write(BIO *b, const void *data, int len);
size_t BIO_ctrl_pending(BIO *b);
unsigned long ERR_get_error(void);
void ERR_error_string_n(unsigned long e, char *buf, size_t len);
void ERR_clear_error(void);
]]

local ok, ssl = pcall(ffi.load, "ssl.so.3")
if not ok then ssl = ffi.load "ssl" end
local ok_crypto, crypto = pcall(ffi.load, "crypto.so.3")
if not ok_crypto then crypto = ffi.load "crypto" end

local WANT_READ, ZERO_RETURN = 2, 6
local scratch = ffi.new "uint8_t[65536]"

local tls = {}

-- ---- certificates ----

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1; echo \"status $?\"", "r"))
  local out = pipe:read "*a"
  pipe:close()
  if not out:find "status 0\n$" then error(command .. ": " .. out, 3) end
end

-- A certificate for `name` in the folder: options ca (of tls.ca), days, rsa. Returns { cert =, key = }.
function tls.certificate(folder, name, options)
  options = options or {}
  local file = folder .. "/" .. name:gsub("[^%w]", "_") .. (options.suffix or "")
  local alt = options.alt or ("DNS:%s,DNS:localhost,IP:127.0.0.1"):format(name)
  local kind = options.rsa and "rsa:2048" or "ec -pkeyopt ec_paramgen_curve:P-256"
  local days, sign = options.days or 30, ""
  if options.ca then sign = ("-CA %s -CAkey %s"):format(options.ca.cert, options.ca.key) end
  run(("openssl req -x509 -newkey %s -nodes -keyout %s.key -out %s.pem -days %d -subj '/CN=%s' -addext " ..
    "subjectAltName=%s -addext basicConstraints=critical,CA:FALSE %s"):format(kind, file, file, days, name, alt, sign))
  return { cert = file .. ".pem", key = file .. ".key", name = name }
end

-- One that expired yesterday.
function tls.expired(folder, name)
  local file = folder .. "/" .. name
  run(("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %s.csr -subj /CN=%s")
    :format(file, file, name))
  run(("openssl x509 -req -in %s.csr -signkey %s.key -days -1 -out %s.pem"):format(file, file, file))
  return { cert = file .. ".pem", key = file .. ".key", name = name }
end

-- An authority.
function tls.ca(folder, name)
  local file = folder .. "/" .. name
  run(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %s.pem -days 30 " ..
    "-subj /CN=%s"):format(file, file, name))
  return { cert = file .. ".pem", key = file .. ".key" }
end

-- ---- a peer ----

local Peer = {}
Peer.__index = Peer

local function last_error()
  local e = crypto.ERR_get_error()
  if e == 0 then return "no error" end
  local text = ffi.new "char[256]"
  crypto.ERR_error_string_n(e, text, 256)
  crypto.ERR_clear_error()
  return ffi.string(text)
end

local MIN, MAX, MODE_VERSIONS = 123, 124, { ["1.2"] = 0x0303, ["1.3"] = 0x0304 }

local function new_context(method, options)
  local ctx = ssl.SSL_CTX_new(method)
  if options.version then
    ssl.SSL_CTX_ctrl(ctx, MIN, MODE_VERSIONS[options.version], nil)
    ssl.SSL_CTX_ctrl(ctx, MAX, MODE_VERSIONS[options.version], nil)
  end
  if options.cert then
    assert(ssl.SSL_CTX_use_certificate_chain_file(ctx, options.cert) == 1, last_error())
    assert(ssl.SSL_CTX_use_PrivateKey_file(ctx, options.key, 1) == 1, last_error())
  end
  if options.ca then
    assert(ssl.SSL_CTX_load_verify_locations(ctx, options.ca, nil) == 1, last_error())
    ssl.SSL_CTX_set_verify(ctx, options.require and 3 or 1, nil)
  end
  if options.alpn then
    local wire = ""
    for _, name in ipairs(options.alpn) do wire = wire .. string.char(#name) .. name end
    ssl.SSL_CTX_set_alpn_protos(ctx, wire, #wire)
  end
  return ctx
end

local function new_peer(socket, method, options)
  local self = setmetatable({ socket = socket }, Peer)
  self.ctx = new_context(method, options)
  self.ssl = ssl.SSL_new(self.ctx)
  self.rbio, self.wbio = crypto.BIO_new(crypto.BIO_s_mem()), crypto.BIO_new(crypto.BIO_s_mem())
  ssl.SSL_set_bio(self.ssl, self.rbio, self.wbio)
  return self
end

-- A TLS client on a connected socket: options ca, cert, key, name (SNI), alpn, version, session. Not begun yet.
function tls.client(socket, options)
  options = options or {}
  local self = new_peer(socket, ssl.TLS_client_method(), options)
  if options.name then ssl.SSL_ctrl(self.ssl, 55, 0, ffi.cast("void *", options.name)) end
  if options.session then ssl.SSL_set_session(self.ssl, options.session) end
  ssl.SSL_set_connect_state(self.ssl)
  return self
end

-- Code that is compiled must not call what calls back into Lua, as a handshake does.
jit.off(true, true)

local function address_of(pointer) return tonumber(ffi.cast("uintptr_t", pointer)) end

local servers = setmetatable({}, { __mode = "v" }) -- by the address of their SSL
local CHOSEN, REFUSED, IGNORED = 0, 2, 3

-- Notes what the client offers, and chooses the first of the server's own protocols that is in it.
local function select_alpn(handle, out, out_len, offer, n)
  local self, at = servers[address_of(handle)], 0
  local place = {}
  self.offered = {}
  while at < n do
    local name = ffi.string(offer + at + 1, offer[at])
    self.offered[#self.offered + 1] = name
    place[name] = at + 1
    at = at + 1 + #name
  end
  if not self.protocols then return IGNORED end
  for _, name in ipairs(self.protocols) do
    if place[name] then
      out[0], out_len[0] = offer + place[name], #name
      return CHOSEN
    end
  end
  return REFUSED
end

local on_alpn = ffi.cast("alpn_select", select_alpn) -- one for all: the number of callbacks is limited

-- A TLS server on an accepted socket: options cert, key, ca, require, version, alpn (a list in the order of its
-- preference; refuses clients that offer none of them). `offered` is the list of protocols that the client has offered,
-- nil when it has offered none.
function tls.server(socket, options)
  local self = new_peer(socket, ssl.TLS_server_method(), { cert = options.cert, key = options.key, ca = options.ca,
    require = options.require, version = options.version })
  self.protocols = options.alpn
  servers[address_of(self.ssl)] = self
  ssl.SSL_CTX_set_alpn_select_cb(self.ctx, on_alpn, nil)
  ssl.SSL_set_accept_state(self.ssl)
  return self
end

-- The bytes that it wants to send, taken from it.
function Peer:output()
  local n = tonumber(crypto.BIO_ctrl_pending(self.wbio))
  if n == 0 then return "" end
  local memory = ffi.new("uint8_t[?]", n)
  crypto.BIO_read(self.wbio, memory, n)
  return ffi.string(memory, n)
end

function Peer:flush()
  local bytes = self:output()
  if bytes ~= "" then self.socket:send(bytes) end
  return self
end

-- Bytes of the other side, in.
function Peer:input(bytes)
  crypto.BIO_write(self.rbio, bytes, #bytes)
end

-- One step of the handshake without the wire: true when it is over, false when it waits, nil and why.
function Peer:step()
  local r = ssl.SSL_do_handshake(self.ssl)
  if r == 1 then return true end
  if ssl.SSL_get_error(self.ssl, r) == WANT_READ then return false end
  return nil, last_error()
end

-- Waits for more bytes of the other side; nil and "eof" or an errno's name.
function Peer:wait_input()
  local bytes, how = self.socket:receive()
  if bytes then self:input(bytes) end
  return bytes, how
end

-- The whole handshake: true, or nil and why it failed.
function Peer:try_handshake()
  while true do
    local done, why = self:step()
    local bytes = self:output()
    if bytes ~= "" then self.socket:offer(bytes) end
    if done then return true end
    if done == nil then return nil, why end
    local more, how = self:wait_input()
    if not more then return nil, how end
  end
end

function Peer:handshake()
  local good, why = self:try_handshake()
  if not good then error("TLS handshake: " .. why, 2) end
  return self
end

function Peer:send(text)
  local at = 1
  while at <= #text do
    local part = text:sub(at, at + 16383)
    assert(ssl.SSL_write(self.ssl, part, #part) == #part, last_error())
    at = at + #part
    self:flush()
  end
  return self
end

-- Some plain text; nil and "close_notify", "eof" (without one), an errno's name or an error of TLS.
function Peer:receive()
  while true do
    local n = ssl.SSL_read(self.ssl, scratch, 65536)
    if n > 0 then return ffi.string(scratch, n) end
    local what = ssl.SSL_get_error(self.ssl, n)
    self:flush_quietly()
    if what == ZERO_RETURN then return nil, "close_notify" end
    if what ~= WANT_READ then return nil, last_error() end
    local more, how = self:wait_input()
    if not more then return nil, how end
  end
end

function Peer:flush_quietly()
  local bytes = self:output()
  if bytes ~= "" then self.socket:offer(bytes) end
end

function Peer:read(n)
  local parts, got = { self.left or "" }, #(self.left or "")
  while got < n do
    local part, why = self:receive()
    if not part then
      error(("ended (%s) after %d of %d bytes: %q"):format(why, got, n, table.concat(parts):sub(-200)), 2)
    end
    parts[#parts + 1] = part
    got = got + #part
  end
  local all = table.concat(parts)
  self.left = all:sub(n + 1)
  return all:sub(1, n)
end

function Peer:expect(text)
  local got = self:read(#text)
  if got ~= text then error(("expected %q, received %q"):format(text, got), 2) end
  return self
end

-- Demands how the other side ends: "close_notify", "eof", "ECONNRESET", with nothing before.
function Peer:expect_end(want)
  if (self.left or "") ~= "" then error(("%d bytes that nobody sent"):format(#self.left), 2) end
  local part, how = self:receive()
  if part then error(("bytes that nobody sent: %q"):format(part:sub(1, 200)), 2) end
  if how ~= want then error(("the stream ended by %s, not by %s"):format(how, want), 2) end
end

-- close_notify, and no more from us; the socket stays open for writing unless `fin`.
function Peer:goodbye(fin)
  ssl.SSL_shutdown(self.ssl)
  self:flush()
  if fin then self.socket:finish() end
  return self
end

function Peer:key_update(request)
  assert(ssl.SSL_key_update(self.ssl, request and 1 or 0) == 1, last_error())
  assert(ssl.SSL_do_handshake(self.ssl) == 1, last_error())
  return self:flush()
end

function Peer:renegotiate()
  ssl.SSL_renegotiate(self.ssl)
  ssl.SSL_do_handshake(self.ssl)
  return self:flush()
end

function Peer:is_resumed() return ssl.SSL_session_reused(self.ssl) == 1 end
function Peer:version() return ffi.string(ssl.SSL_get_version(self.ssl)) end
function Peer:session() return ssl.SSL_get1_session(self.ssl) end

function Peer:alpn()
  local data, len = ffi.new "const unsigned char *[1]", ffi.new "unsigned[1]"
  ssl.SSL_get0_alpn_selected(self.ssl, data, len)
  return len[0] > 0 and ffi.string(data[0], len[0]) or nil
end

-- The name asked for, of a server.
function Peer:sni()
  local name = ssl.SSL_get_servername(self.ssl, 0)
  return name ~= nil and ffi.string(name) or nil
end

-- "/CN=a.lab" of the other side's certificate, nil without one.
function Peer:subject()
  local cert = ssl.SSL_get1_peer_certificate(self.ssl)
  if cert == nil then return nil end
  local text = ffi.new "char[256]"
  crypto.X509_NAME_oneline(crypto.X509_get_subject_name(cert), text, 256)
  crypto.X509_free(cert)
  return ffi.string(text)
end

function Peer:close() self.socket:close() end
function Peer:reset() self.socket:reset() end

tls.run = run
tls.patience = sys.PATIENCE
return tls
