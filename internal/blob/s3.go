package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"qgjob"
)

// s3OpenTimeout bounds the first question to a bucket.
const s3OpenTimeout = 15 * time.Second

const (
	// s3StoreTimeout is how long a bucket may take to answer once it has all of a file.
	s3StoreTimeout = 10 * time.Minute
	// s3Tries is how often a request is made: whoever asked for it tries again, too.
	s3Tries = 3
)

// S3 stores files in a bucket of Amazon S3, or of a server that speaks its protocol. All methods may be called
// concurrently, also by several processes that share the bucket.
//
//	<prefix>/<kind>s/<SHA-256 of the org id>/abcdef…, -<copy> after the name of those that have one
//
// An upload goes through a file of this host, which is verified before the bucket gets it.
type S3 struct {
	client *minio.Client
	bucket string
	prefix string
	tmp    string
}

// OpenS3 opens the store that a URL names: s3://bucket/prefix?region=eu-central-1 at Amazon, or with endpoint=https://host at
// another server (http:// for one on a trusted network). The credentials are those of AWS's own tools: environment, shared file,
// the machine's role. tmp is a directory for uploads on their way. A bucket that cannot be used is an error now.
func OpenS3(ctx context.Context, address, tmp string) (*S3, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil {
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "%q is no URL of a bucket: use s3://bucket/prefix?region=REGION or s3://bucket?endpoint=https://HOST; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", withoutUser(address))
	}
	for name := range u.Query() {
		if name != "endpoint" && name != "region" {
			return nil, qgjob.Errorf(qgjob.CodeInvalid, "%s: %q is unknown: use endpoint and region", address, name)
		}
	}
	host, secure := "s3.amazonaws.com", true
	if given := u.Query().Get("endpoint"); given != "" {
		e, err := url.Parse(given)
		if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" || strings.Trim(e.Path, "/") != "" {
			return nil, qgjob.Errorf(qgjob.CodeInvalid, "endpoint %q is none: use https://HOST", given)
		}
		host, secure = e.Host, e.Scheme == "https"
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", u.Host, err)
	}
	transport.ResponseHeaderTimeout = s3StoreTimeout
	client, err := minio.New(host, &minio.Options{
		Transport: transport, MaxRetries: s3Tries,
		Creds:  credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}}),
		Secure: secure, Region: u.Query().Get("region"),
	})
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", u.Host, err)
	}
	if err = makeDir(tmp); err == nil {
		err = sweep(tmp)
	}
	if err != nil {
		return nil, fmt.Errorf("directory for uploads %s: %w", tmp, err)
	}
	s := &S3{client: client, bucket: u.Host, prefix: strings.Trim(u.Path, "/"), tmp: tmp}
	bounded, cancel := context.WithTimeout(ctx, s3OpenTimeout)
	defer cancel()
	switch exists, err := client.BucketExists(bounded, s.bucket); {
	case err != nil:
		return nil, qgjob.Errorf(qgjob.CodeUnavailable, "bucket %s at %s cannot be used: check endpoint, region and credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY): %w", s.bucket, host, err)
	case !exists:
		return nil, qgjob.Errorf(qgjob.CodeUnavailable, "there is no bucket %s at %s: make it first", s.bucket, host)
	}
	return s, nil
}

// withoutUser is an address without what somebody may have put before an @.
func withoutUser(address string) string {
	if _, rest, ok := strings.Cut(address, "@"); ok {
		return "s3://" + rest
	}
	return address
}

// Put implements Store.
func (s *S3) Put(ctx context.Context, k Key, r io.Reader, limit int64, check func(path string) error) (Info, error) {
	f, size, err := receive(ctx, s.tmp, k, r, limit, check)
	if err != nil {
		return Info{}, err
	}
	defer discard(f)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Info{}, storageError(err)
	}
	// One request: a file is there whole or not at all, and nothing of a broken upload is left to be paid for.
	_, err = s.client.PutObject(ctx, s.bucket, s.name(k), f, size, minio.PutObjectOptions{DisableMultipart: true, ContentType: "application/octet-stream"})
	if err != nil {
		return Info{}, s3Error(k, err)
	}
	return s.Stat(ctx, k)
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, k Key) (io.ReadSeekCloser, Info, error) {
	info, err := s.Stat(ctx, k)
	if err != nil {
		return nil, Info{}, err
	}
	object, err := s.client.GetObject(ctx, s.bucket, s.name(k), minio.GetObjectOptions{})
	if err != nil {
		return nil, Info{}, s3Error(k, err)
	}
	return object, info, nil
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, k Key) (Info, error) {
	if err := k.check(); err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s3OpenTimeout)
	defer cancel()
	object, err := s.client.StatObject(ctx, s.bucket, s.name(k), minio.StatObjectOptions{})
	if err != nil {
		return Info{}, s3Error(k, err)
	}
	return Info{Size: object.Size, StoredAt: object.LastModified}, nil
}

// Remove implements Store.
func (s *S3) Remove(ctx context.Context, k Key, before time.Time) error {
	info, err := s.Stat(ctx, k)
	if qgjob.ErrorCode(err) == qgjob.CodeNotFound || err == nil && !info.StoredAt.Before(before) {
		return nil
	}
	if err != nil {
		return err
	}
	return s3Error(k, s.client.RemoveObject(ctx, s.bucket, s.name(k), minio.RemoveObjectOptions{}))
}

func (s *S3) name(k Key) string {
	org := sha256.Sum256([]byte(k.OrgID))
	return path.Join(s.prefix, string(k.Kind)+"s", hex.EncodeToString(org[:]), k.name())
}

func s3Error(k Key, err error) error {
	if err == nil {
		return nil
	}
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
		return notThere(k)
	}
	return storageError(err)
}
