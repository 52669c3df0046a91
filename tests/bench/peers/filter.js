// nginx's js_filter `pass` and `replace`: the same work as ../policies, both ways. Buffers are the cheaper way to
// pass a chunk on; to replace in it, njs has only strings.
function pass(s) {
    function send(chunk, flags) {
        s.send(chunk, flags);
    }
    s.on('upstream', send);
    s.on('downstream', send);
}

function replace(s) {
    function send(chunk, flags) {
        s.send(chunk.replace(/tok_abcd/g, 'TOK_ABCD'), flags);
    }
    s.on('upload', send);
    s.on('download', send);
}

export default {pass, replace};
