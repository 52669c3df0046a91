"""Certificates by openssl(1): an authority, and one for penstock that is renewed."""
import os
import ssl
import subprocess

NAME = "soak.test"
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _openssl(*words):
    subprocess.run(["openssl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Authority:
    def __init__(self, directory):
        self.certificate, self.key = os.path.join(directory, "ca.pem"), os.path.join(directory, "ca.key")
        self.pair = os.path.join(directory, "pair.pem")  # certificate and key in one file, so that both change at once
        _openssl("req", "-x509", *KEY, "-keyout", self.key, "-out", self.certificate, "-days", "30", "-subj", "/CN=ca")
        self.renew()

    def renew(self):
        """Another certificate with another key in the place of the one before."""
        key, made = self.pair + ".key", self.pair + ".made"
        _openssl("req", "-x509", *KEY, "-keyout", key, "-out", made, "-days", "30", "-subj", "/CN=" + NAME,
                 "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE",
                 "-CA", self.certificate, "-CAkey", self.key)
        with open(made, "a") as pair, open(key) as text:
            pair.write(text.read())
        os.chmod(made, 0o600)
        os.replace(made, self.pair)

    def context(self):
        """For clients."""
        return ssl.create_default_context(cafile=self.certificate)
