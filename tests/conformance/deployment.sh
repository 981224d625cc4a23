#!/usr/bin/env bash
# A deployment as people script it with the AWS CLI: from the role to the last deletion. Each line that it prints is
# a name and what the service answered; the test compares them.
# usage: deployment.sh AWS_PROGRAM ENDPOINT RUNTIME   (in a folder of its own)
set -euo pipefail
program=$1 endpoint=$2 runtime=$3
aws() { "$program" --output text --endpoint-url "$endpoint" "$@"; }
lambda() { aws lambda "$@"; }
say() { printf '%s %s\n' "$1" "$(tr -s '\t\n ' ' ' <<<"$2" | sed 's/ *$//')"; }
until_it_says() { # a state, then the command that reads it
    local wanted=$1 found
    shift
    for _ in $(seq 30); do
        found=$("$@")
        [ "$found" != "$wanted" ] || return 0
        sleep 0.3
    done
    echo "still $found instead of $wanted: $*" >&2
    return 1
}

mkdir -p app/lib layer/python
cat >app/lambda_function.py <<'P'
import os

from lib import greet

try:
    from words import WORD
except ImportError:
    WORD = "bare"


def lambda_handler(event, context):
    print("stage", os.environ["STAGE"])
    return f"{context.function_version} {greet(event.get('name', 'caller'))} {WORD}"
P
echo 'def greet(name): return "hello " + name' >app/lib/__init__.py
echo 'WORD = "layered"' >layer/python/words.py
(cd app && python3 -m zipfile -c ../app.zip lambda_function.py lib)
(cd layer && python3 -m zipfile -c ../layer.zip python)

# --- role, function, version 1 and what users call ---------------------------------------------------------
basic=arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole
role=$(aws iam create-role --role-name deployed --query Role.Arn --assume-role-policy-document '{"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}')
aws iam attach-role-policy --role-name deployed --policy-arn "$basic"
function=$(lambda create-function --function-name deployed --runtime "$runtime" --role "$role" --timeout 10 \
    --handler lambda_function.lambda_handler --zip-file fileb://app.zip --memory-size 256 --publish \
    --environment 'Variables={STAGE=one}' --tags team=a,cost=b --query FunctionArn)
function=${function%:1}
lambda wait function-active-v2 --function-name deployed
lambda create-alias --function-name deployed --name live --function-version 1 >/dev/null

# --- version 2 with a layer, then half of the calls to each ------------------------------------------------
layer=$(lambda publish-layer-version --layer-name deployed --zip-file fileb://layer.zip \
    --compatible-runtimes "$runtime" --query LayerVersionArn)
lambda update-function-configuration --function-name deployed --layers "$layer" \
    --environment 'Variables={STAGE=two}' >/dev/null
lambda wait function-updated-v2 --function-name deployed
say published "$(lambda publish-version --function-name deployed --query Version)"
lambda wait published-version-active --function-name deployed --qualifier 2
say routing "$(lambda update-alias --function-name deployed --name live \
    --routing-config 'AdditionalVersionWeights={2=0.5}' --query 'RoutingConfig.AdditionalVersionWeights."2"')"
say unrouted "$(lambda update-alias --function-name deployed --name live --function-version 2 \
    --routing-config 'AdditionalVersionWeights={}' --query RoutingConfig)"
say log "$(lambda invoke --function-name deployed:live --log-type Tail --payload '{"name": "you"}' --query LogResult \
    out | base64 -d | grep -E '^(stage|END)' | sed 's/RequestId.*/RequestId/')"
say new "$(cat out)"
lambda invoke --function-name deployed --qualifier 1 --payload '{"name": "you"}' out >/dev/null
say old "$(cat out)"
say event "$(lambda invoke --function-name "$function:live" --invocation-type Event --query StatusCode out)"

# --- who may call it, from where, how much at once ---------------------------------------------------------
lambda add-permission --function-name deployed --qualifier live --statement-id url --principal '*' \
    --action lambda:InvokeFunctionUrl --function-url-auth-type NONE >/dev/null
lambda add-permission --function-name deployed --qualifier live --statement-id through --principal '*' \
    --action lambda:InvokeFunction --invoked-via-function-url >/dev/null
url=$(lambda create-function-url-config --function-name deployed --qualifier live --auth-type NONE \
    --cors 'AllowOrigins=*,AllowMethods=GET' --query FunctionUrl)
host=${url#http://}
say url "$(curl -sS -w ' %{http_code}' -H "Host: ${host%/}" "$endpoint/")"
lambda put-function-concurrency --function-name deployed --reserved-concurrent-executions 5 >/dev/null
lambda put-provisioned-concurrency-config --function-name deployed --qualifier live \
    --provisioned-concurrent-executions 1 >/dev/null
until_it_says READY lambda get-provisioned-concurrency-config --function-name deployed --qualifier live --query Status
lambda put-function-event-invoke-config --function-name deployed --qualifier live --maximum-retry-attempts 0 >/dev/null
mapping=$(lambda create-event-source-mapping --function-name deployed:live --batch-size 5 --no-enabled --query UUID \
    --event-source-arn arn:aws:sqs:us-east-1:000000000000:deployed)
until_it_says Disabled lambda get-event-source-mapping --uuid "$mapping" --query State

# --- lists, pages, tags, logs ------------------------------------------------------------------------------
lambda list-versions-by-function --function-name deployed --max-items 1 --output json >page.json
token=$(python3 -c 'import json; print(json.load(open("page.json"))["NextToken"])')
say page "$(lambda list-versions-by-function --function-name deployed --max-items 1 --starting-token "$token" \
    --output json --query 'Versions[].Version')"
say versions "$(lambda list-versions-by-function --function-name deployed --page-size 1 --query 'Versions[].Version')"
lambda tag-resource --resource "$function" --tags stage=prod
lambda untag-resource --resource "$function" --tag-keys cost
say tags "$(lambda list-tags --resource "$function" --query 'Tags.[stage,team,cost]')"
say unreserved "$(lambda get-account-settings --query AccountLimit.UnreservedConcurrentExecutions)"
say streams "$(aws logs describe-log-streams --log-group-name /aws/lambda/deployed \
    --query 'length(logStreams) >= `2`')"

# --- and away with it --------------------------------------------------------------------------------------
lambda delete-event-source-mapping --uuid "$mapping" >/dev/null
lambda delete-function --function-name deployed >/dev/null
lambda delete-layer-version --layer-name deployed --version-number 1
aws iam detach-role-policy --role-name deployed --policy-arn "$basic"
aws iam delete-role --role-name deployed
aws logs delete-log-group --log-group-name /aws/lambda/deployed
say gone "$(lambda get-function --function-name deployed 2>&1 | grep -o ResourceNotFoundException)"
