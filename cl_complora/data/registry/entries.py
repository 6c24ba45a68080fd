"""The data sets that the registry knows, one entry each. A new one is an entry here and a fake in its
test."""

from __future__ import annotations

from . import names, templates
from .dataset import Dataset
from .readers import BY_FLAG, by_split, folders, midframes, torchvision
from .word_lists import FLOWERS102, GTSRB

_FOR_TORCHVISION = "torchvision.datasets.{}(root, download=True)"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/"
_HALF = 0.5
# What work on class-incremental learning has settled on for ImageNet-R and -A, which come as test sets.
_FIFTH = 0.2

_FINE_GRAINED = (
    Dataset(
        name="aircraft",
        title="FGVC-Aircraft 2013b",
        classes=100,
        templates=templates.AIRCRAFT,
        train=6667,
        test=3333,
        layout=(
            "fgvc-aircraft-2013b/data/ with variants.txt, images_variant_{trainval,test}.txt and images/*.jpg"
        ),
        get=f"{_FOR_TORCHVISION.format('FGVCAircraft')} or {_OXFORD}fgvc-aircraft/",
        needs=tuple(
            f"fgvc-aircraft-2013b/data/{path}"
            for path in ("variants.txt", "images_variant_trainval.txt", "images_variant_test.txt", "images")
        ),
        read=torchvision("FGVCAircraft", **by_split(train=["trainval"], test=["test"])),
    ),
    Dataset(
        name="stanford_cars",
        title="Stanford Cars",
        classes=196,
        templates=templates.CARS,
        train=8144,
        test=8041,
        layout=(
            "stanford_cars/ with devkit/{cars_meta,cars_train_annos}.mat, cars_test_annos_withlabels.mat, "
            "cars_train/*.jpg and cars_test/*.jpg"
        ),
        get=(
            "the Stanford page is gone and torchvision downloads nothing: put the mirrors' files together as"
            " told in https://github.com/pytorch/vision/issues/7545#issuecomment-1631441616"
        ),
        needs=tuple(
            f"stanford_cars/{path}"
            for path in (
                "devkit/cars_meta.mat",
                "devkit/cars_train_annos.mat",
                "cars_test_annos_withlabels.mat",
                "cars_train",
                "cars_test",
            )
        ),
        read=torchvision("StanfordCars", **by_split(train=["train"], test=["test"])),
    ),
    Dataset(
        name="flowers102",
        title="Oxford Flowers-102",
        classes=102,
        templates=templates.FLOWERS,
        train=2040,
        test=6149,
        layout="flowers-102/ with setid.mat, imagelabels.mat and jpg/image_*.jpg",
        get=f"{_FOR_TORCHVISION.format('Flowers102')} or {_OXFORD}flowers/102/",
        needs=("flowers-102/setid.mat", "flowers-102/imagelabels.mat", "flowers-102/jpg"),
        read=torchvision("Flowers102", **by_split(train=["train", "val"], test=["test"])),
        words=names.fixed(FLOWERS102),
    ),
    Dataset(
        name="food101",
        title="Food-101",
        classes=101,
        templates=templates.FOOD,
        train=75750,
        test=25250,
        layout="food-101/ with meta/{train,test}.json and images/<class>/*.jpg",
        get=f"{_FOR_TORCHVISION.format('Food101')} or https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        needs=("food-101/meta/train.json", "food-101/meta/test.json", "food-101/images"),
        read=torchvision("Food101", **by_split(train=["train"], test=["test"])),
    ),
    Dataset(
        name="oxford_pet",
        title="Oxford-IIIT Pet",
        classes=37,
        templates=templates.PETS,
        train=3680,
        test=3669,
        layout="oxford-iiit-pet/ with annotations/{trainval,test}.txt and images/*.jpg",
        get=f"{_FOR_TORCHVISION.format('OxfordIIITPet')} or {_OXFORD}pets/",
        needs=tuple(
            f"oxford-iiit-pet/{path}"
            for path in ("annotations/trainval.txt", "annotations/test.txt", "images")
        ),
        read=torchvision("OxfordIIITPet", **by_split(train=["trainval"], test=["test"])),
    ),
)

_GENERAL = (
    Dataset(
        name="caltech101",
        title="Caltech-101",
        classes=101,
        templates=templates.CALTECH,
        train=4331,
        test=4346,
        layout="caltech101/101_ObjectCategories/<class>/image_*.jpg, BACKGROUND_Google (left out) among them",
        get=f"{_FOR_TORCHVISION.format('Caltech101')} or https://data.caltech.edu/records/mzrjq-6wc02",
        needs=("caltech101/101_ObjectCategories", "caltech101/101_ObjectCategories/BACKGROUND_Google"),
        read=torchvision("Caltech101"),
        words=names.caltech,
        test_share=_HALF,
    ),
    Dataset(
        name="cifar10",
        title="CIFAR-10",
        classes=10,
        templates=templates.CIFAR,
        train=50000,
        test=10000,
        layout=(
            "cifar-10-batches-py/ with data_batch_1 … data_batch_5, test_batch and batches.meta, unchanged"
        ),
        get=(
            f"{_FOR_TORCHVISION.format('CIFAR10')} or https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
        ),
        needs=("cifar-10-batches-py/batches.meta", "cifar-10-batches-py/test_batch"),
        read=torchvision("CIFAR10", **BY_FLAG),
    ),
    Dataset(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        templates=templates.CIFAR,
        train=50000,
        test=10000,
        layout="cifar-100-python/ with train, test and meta, unchanged",
        get=(
            f"{_FOR_TORCHVISION.format('CIFAR100')} or"
            " https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
        ),
        needs=("cifar-100-python/meta", "cifar-100-python/train", "cifar-100-python/test"),
        read=torchvision("CIFAR100", **BY_FLAG),
    ),
    Dataset(
        name="sun397",
        title="SUN397",
        classes=397,
        templates=templates.A_OR_THE_PHOTO,
        train=54377,
        test=54377,
        layout="SUN397/ with ClassName.txt and <letter>/<class>[/<subclass>]/sun_*.jpg",
        get=(
            "the Princeton link that torchvision knows is dead"
            " (https://github.com/pytorch/vision/issues/9348): take a copy,"
            " https://opendatalab.com/OpenDataLab/SUN397 say, of SUN397.tar.gz and unpack it below the root"
        ),
        needs=("SUN397/ClassName.txt",),
        read=torchvision("SUN397"),
        words=names.scenes,
        test_share=_HALF,
    ),
    Dataset(
        name="ucf101",
        title="UCF101 (middle frames)",
        classes=101,
        templates=templates.ACTIONS,
        train=9537,
        test=3783,
        layout="UCF-101-midframes/<Class_Name>/v_<Class>_g<group>_c<clip>.jpg",
        get="UCF-101-midframes.zip, linked in DATASETS.md of https://github.com/KaiyangZhou/CoOp",
        needs=("UCF-101-midframes",),
        read=midframes("UCF-101-midframes"),
    ),
    Dataset(
        name="country211",
        title="Country211",
        classes=211,
        templates=templates.COUNTRY,
        train=42200,
        test=21100,
        layout="country211/{train,valid,test}/<ISO code>/*.jpg",
        get=f"{_FOR_TORCHVISION.format('Country211')} or https://github.com/openai/CLIP (data/country211.md)",
        needs=("country211/train", "country211/valid", "country211/test"),
        read=torchvision("Country211", **by_split(train=["train", "valid"], test=["test"])),
        words=names.countries,
    ),
)

_SPECIAL = (
    Dataset(
        name="dtd",
        title="Describable Textures",
        classes=47,
        templates=templates.TEXTURES,
        train=3760,
        test=1880,
        layout="dtd/dtd/ with labels/{train1,val1,test1}.txt and images/<class>/*.jpg",
        get=f"{_FOR_TORCHVISION.format('DTD')} or {_OXFORD}dtd/",
        needs=("dtd/dtd/images", *(f"dtd/dtd/labels/{split}1.txt" for split in ("train", "val", "test"))),
        read=torchvision("DTD", **by_split(train=["train", "val"], test=["test"])),
    ),
    Dataset(
        name="eurosat",
        title="EuroSAT (RGB)",
        classes=10,
        templates=templates.SATELLITE,
        train=13500,
        test=13500,
        layout="eurosat/2750/<class>/*.jpg",
        get=f"{_FOR_TORCHVISION.format('EuroSAT')} or https://github.com/phelber/eurosat",
        needs=("eurosat/2750",),
        read=torchvision("EuroSAT"),
        words=names.satellite,
        test_share=_HALF,
    ),
    Dataset(
        name="mnist",
        title="MNIST",
        classes=10,
        templates=templates.DIGITS,
        train=60000,
        test=10000,
        layout="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, unpacked",
        get=_FOR_TORCHVISION.format("MNIST"),
        needs=tuple(
            f"MNIST/raw/{split}-{kind}-ubyte"
            for split in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ),
        read=torchvision("MNIST", **BY_FLAG),
        words=names.fixed([str(digit) for digit in range(10)]),
    ),
    Dataset(
        name="gtsrb",
        title="German Traffic Signs",
        classes=43,
        templates=templates.SIGNS,
        train=26640,
        test=12630,
        layout=(
            "gtsrb/ with GTSRB/Training/<00000…00042>/*.ppm, GTSRB/Final_Test/Images/*.ppm and"
            " GT-final_test.csv"
        ),
        get=f"{_FOR_TORCHVISION.format('GTSRB')}, once for each split, or https://benchmark.ini.rub.de/",
        needs=("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
        read=torchvision("GTSRB", **by_split(train=["train"], test=["test"])),
        words=names.fixed(GTSRB),
    ),
    Dataset(
        name="rendered_sst2",
        title="Rendered SST-2",
        classes=2,
        templates=templates.REVIEWS,
        train=7792,
        test=1821,
        layout="rendered-sst2/{train,valid,test}/{negative,positive}/*.png",
        get=(
            f"{_FOR_TORCHVISION.format('RenderedSST2')} or https://github.com/openai/CLIP"
            " (data/rendered-sst2.md)"
        ),
        needs=("rendered-sst2/train", "rendered-sst2/valid", "rendered-sst2/test"),
        read=torchvision("RenderedSST2", **by_split(train=["train", "val"], test=["test"])),
    ),
)


def _pacs(domain: str, template: str, pictures: int) -> Dataset:
    """One domain of PACS; CLIP published no templates for it, so each names its medium."""
    kept = round(pictures * _HALF)
    return Dataset(
        name=f"pacs-{domain}",
        title=f"PACS, {domain.replace('_', ' ')}",
        classes=7,
        templates=(template,),
        train=pictures - kept,
        test=kept,
        layout=f"PACS/{domain}/{{dog,elephant,giraffe,guitar,horse,house,person}}/*",
        get="python -m domainbed.scripts.download --data_dir=ROOT of https://github.com/facebookresearch/DomainBed",
        needs=(f"PACS/{domain}",),
        read=folders(f"PACS/{domain}"),
        test_share=_HALF,
    )


_PACS = (
    _pacs("photo", "a photo of a {}.", 1670),
    _pacs("art_painting", "an art painting of a {}.", 2048),
    _pacs("cartoon", "a cartoon of a {}.", 2344),
    _pacs("sketch", "a sketch of a {}.", 3929),
)


def _imagenet(
    name: str,
    title: str,
    where: str,
    pictures: int,
    get: str,
    classes: int = 1000,
    share: float | None = None,
) -> Dataset:
    """A test set of ImageNet's classes in synset folders, divided where it is trained on, too."""
    kept = pictures if share is None else round(pictures * share)
    return Dataset(
        name=name,
        title=title,
        classes=classes,
        templates=templates.IMAGENET,
        train=pictures - kept,
        test=kept,
        layout=f"{' or '.join(where.split('|'))}, holding {classes} class folders as they come",
        get=get,
        needs=(where,),
        read=folders(where),
        words=names.imagenet,
        test_share=share,
    )


_IMAGENET = (
    Dataset(
        name="imagenet",
        title="ImageNet (ILSVRC 2012)",
        classes=1000,
        templates=templates.IMAGENET,
        train=1281167,
        test=50000,
        layout=(
            "imagenet/val/<synset>/*.JPEG or, where the root is ImageNet's own folder, val/<synset>/*.JPEG;"
            " train/ beside val/ only to train on it"
        ),
        get=(
            "https://image-net.org/download (needs an account); torchvision.datasets.ImageNet unpacks and"
            " sorts the archives"
        ),
        needs=("imagenet/val|val",),
        read=folders("imagenet/val|val", "imagenet/train|train"),
        words=names.imagenet,
        train_optional=True,
    ),
    _imagenet(
        "imagenet-v2",
        "ImageNet-V2 (matched frequency)",
        "imagenetv2-matched-frequency-format-val|imagenet-v2",
        10000,
        "https://huggingface.co/datasets/vaishaal/ImageNetV2 (imagenetv2-matched-frequency.tar.gz)",
    ),
    _imagenet(
        "imagenet-r",
        "ImageNet-R",
        "imagenet-r",
        30000,
        "https://github.com/hendrycks/imagenet-r (imagenet-r.tar)",
        classes=200,
        share=_FIFTH,
    ),
    _imagenet(
        "imagenet-a",
        "ImageNet-A",
        "imagenet-a",
        7500,
        "https://github.com/hendrycks/natural-adv-examples (imagenet-a.tar)",
        classes=200,
        share=_FIFTH,
    ),
    _imagenet(
        "imagenet-sketch",
        "ImageNet-Sketch",
        "sketch|imagenet-sketch",
        50889,
        "https://github.com/HaohanWang/ImageNet-Sketch (ImageNet-Sketch.zip)",
    ),
)

DATASETS = {entry.name: entry for entry in (*_FINE_GRAINED, *_GENERAL, *_SPECIAL, *_PACS, *_IMAGENET)}
